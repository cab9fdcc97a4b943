"""Which members a recipe asks for, which of them are trained together, and at which rate."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

from credibly.members import SOURCES
from credibly.runs import Run
from credibly.settings import AdaptersSettings, BackboneSettings, Labeller, MixedSettings, Recipe


@dataclass(frozen=True)
class Group:
    """Members of one source on one backbone, as the recipe wants them.

    Args:
        backbone: the language model.
        settings: of the source.
        seeds: one a member.
        key: where the settings stand in the recipe.
    """

    backbone: BackboneSettings
    settings: Any
    seeds: tuple[int, ...]
    key: str = "members"

    @property
    def name(self) -> str:
        """Source and backbone, for messages."""
        return f"{len(self.seeds)} {self.settings.source} on {self.backbone.name}"

    @property
    def learning_rate(self) -> float | None:
        """The recipe's learning rate for them; None where no steps train them."""
        optimiser = getattr(self.settings, "optimiser", None)
        return None if optimiser is None else float(optimiser.learning_rate)

    @property
    def rate_key(self) -> str:
        """The recipe's key of their learning rate."""
        return f"{self.key}.optimiser.learning_rate"

    @property
    def is_sized_by_room(self) -> bool:
        """Whether it is left to a plan how many are trained in one pass."""
        return getattr(self.settings, "group", None) == "auto"

    def sized(self, size: int) -> Group:
        """Return the group with so many members in one pass."""
        return replace(self, settings=self.settings.model_copy(update={"group": size}))


@dataclass(frozen=True)
class Pass:
    """Members that are trained together.

    Args:
        group: whose members they are.
        seeds: one a member. Some may be there already: they take part, since the others could depend on them.
        missing: the seeds of those that the run does not hold yet.
        rate: their learning rate, where it is not the recipe's.
    """

    group: Group
    seeds: tuple[int, ...]
    missing: tuple[int, ...]
    rate: float | None = None

    @property
    def settings(self) -> Any:
        """The source's settings, with the rate of this pass."""
        settings = self.group.settings
        if self.rate is None:
            return settings
        optimiser = settings.optimiser.model_copy(update={"learning_rate": self.rate})
        return settings.model_copy(update={"optimiser": optimiser})

    @property
    def name(self) -> str:
        """Its name for checkpoints and trackers."""
        first, last = self.seeds[0], self.seeds[-1]
        which = f"member-{first}" if first == last else f"members-{first}-{last}"
        return which if self.rate is None else f"{which}-rate-{self.rate:g}"

    @property
    def stage(self) -> str:
        """Its name for progress: all members of the group at once, or one or some by their seeds."""
        source, seeds = self.group.settings.source, self.seeds
        given = isinstance(self.group.settings, AdaptersSettings | Labeller)
        doing = "taking in" if given else "training"
        if len(seeds) == len(self.group.seeds):
            return f"{doing} {len(seeds)} {source}"
        which = f"member {seeds[0]}" if len(seeds) == 1 else f"members {seeds[0]} to {seeds[-1]}"
        return f"{doing} {source}, {which}"


def even_sizes(members: int, processes: int = 1) -> list[int]:
    """Return how many members may be in one pass, falling: dealt evenly, among the processes and further.

    >>> even_sizes(10), even_sizes(10, processes=3)
    ([10, 5, 4, 3, 2, 1], [4, 3, 2, 1])
    """
    passes = range(min(processes, members), members + 1)
    return list(dict.fromkeys(-(-members // number) for number in passes))


def groups_of(recipe: Recipe) -> Iterator[Group]:
    """Yield the recipe's groups; members are seeded by the recipe's seed and those that follow.

    What was chosen when a run began stands in its place: how many members are in one pass.
    """
    parts = (
        [
            (part.backbone or recipe.backbone, part.members, f"members.parts.{place}.members")
            for place, part in enumerate(recipe.members.parts)
        ]
        if isinstance(recipe.members, MixedSettings)
        else [(recipe.backbone, recipe.members, "members")]
    )
    first = recipe.seed
    for backbone, settings, key in parts:
        group = Group(backbone, settings, tuple(range(first, first + settings.count)), key)
        chosen = recipe.chosen_groups.get(key)
        yield group.sized(chosen) if chosen and group.is_sized_by_room else group
        first += settings.count


def member_seeds(recipe: Recipe) -> list[int]:
    """Return each member's seed: the recipe's and those that follow."""
    return [seed for group in groups_of(recipe) for seed in group.seeds]


def member_names(recipe: Recipe) -> list[str]:
    """Return what a run's members are called: their seeds, with source and model where these differ."""
    groups = list(groups_of(recipe))
    return [
        f"{seed} ({group.settings.source} on {group.backbone.name})" if len(groups) > 1 else str(seed)
        for group in groups
        for seed in group.seeds
    ]


def missing_of(run: Run, recipe: Recipe) -> list[int]:
    """Return the seeds of the members that a run does not hold yet."""
    # A member's folder is moved into place whole, so one that is there is complete.
    return [seed for seed in member_seeds(recipe) if not run.member_folder(seed).is_dir()]


def passes_of(run: Run, recipe: Recipe, group: Group, seeds: Collection[int] | None = None) -> Iterator[Pass]:
    """Yield the passes of a group in which a member is missing: at the recipe's rate, then at others.

    Args:
        run: which holds some members, or none.
        recipe: what to train.
        group: of the recipe.
        seeds: of the members that count as missing, where not all do.
    """
    again = recipe.other_rates
    absent = {seed for seed in missing_of(run, recipe) if seeds is None or seed in seeds}
    size = SOURCES[group.settings.source].group_size(group.settings)
    for rate in dict.fromkeys([None, *(again[seed] for seed in group.seeds if seed in again)]):
        own = tuple(seed for seed in group.seeds if again.get(seed) == rate)
        together = group.seeds if rate is None else own
        for start in range(0, len(together), size):
            members = together[start : start + size]
            if missing := tuple(seed for seed in members if seed in own and seed in absent):
                yield Pass(group, members, missing, rate)


def count_passes(recipe: Recipe) -> int:
    """Return how many passes train all members of a recipe."""
    groups = groups_of(recipe)
    return sum(-(-len(own.seeds) // SOURCES[own.settings.source].group_size(own.settings)) for own in groups)


def changed_rates(run: Run, recipe: Recipe) -> dict[int, float]:
    """Return the rates, by seed, that a recipe gives a run's missing members and the run's own does not."""
    absent = missing_of(run, run.recipe)
    # Where the groups differ in more than their rates, the recipe is refused anyway.
    pairs = zip(groups_of(run.recipe), groups_of(recipe), strict=False)
    return {
        seed: rate
        for began, now in pairs
        if (rate := now.learning_rate) is not None and rate != began.learning_rate
        for seed in now.seeds
        if seed in absent
    }
