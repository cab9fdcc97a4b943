"""A plan: what each part of a fit needs, what there is, and what is short."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from credibly.backbones.footprint import FLOAT, Needs, steps_of
from credibly.backbones.outline import Outline, Texts
from credibly.report.words.numbers import cost
from credibly.settings import BackboneSettings
from credibly.workflows.planning.machine import Room, Speed

ROOMY = {"memory": 0.8, "GPU memory": 0.8, "disk": 1.0}
"""Shares of what is free that a group which is chosen here may take: of memory, plans told 0.8 times what was
measured at the least; those of the disk are exact."""
MARGIN = 1.1
"""A fit is refused where it needs so many times what is free: estimates err, and what would fit must run."""


@dataclass(frozen=True)
class Part:
    """A group of members, or the student with its controls.

    Args:
        name: for messages.
        key: where its settings stand in the recipe.
        backbone_key: where those of its language model stand.
        source: how its networks are trained.
        settings: of the members, or of the student.
        backbone: the language model.
        outline: of the model.
        texts: to train on.
        networks: how many.
        passes: trainings.
        together: how many of them go on at a time, each in a process of its own.
        needs: what it needs.
        gpus: how many share its model.
        may_split: whether all that are there may share one.
        frozen: whether no members on this model tune it.
        group: networks that are trained in one pass.
        sized: of how many, and why no more, where that is left to the plan; None where the recipe says it.
    """

    name: str
    key: str
    backbone_key: str
    source: str
    settings: Any
    backbone: BackboneSettings
    outline: Outline
    texts: Texts
    networks: int
    passes: int
    together: int
    needs: Needs
    gpus: int = 1
    may_split: bool = False
    frozen: bool = False
    group: int = 1
    sized: str | None = None

    @property
    def is_student(self) -> bool:
        """Whether this is the student with its controls."""
        return self.key == "distil"

    @property
    def outside_bytes(self) -> int:
        """Bytes of the weights outside the blocks: of several GPUs the first has them."""
        own = self.outline
        return own.element_bytes * max(0, self.needs.parameters - own.blocks * own.block.products)

    @property
    def steps(self) -> int:
        """Optimiser steps of one pass; none of members that no steps train."""
        optimiser = getattr(self.settings, "optimiser", None)
        return 0 if optimiser is None else self.needs.cycles * steps_of(len(self.texts), optimiser)


@dataclass(frozen=True)
class Plan:
    """What a fit needs, and what there is.

    Args:
        parts: the groups of members, then the student where there is one.
        room: what is free.
        rows: of all sets together.
        asked: of those that the members answer.
        judged: of those on which networks beside the members are scored.
        systems: how many such networks there are, the untrained one of label words among them.
        reference: bytes of the embeddings that the run keeps.
        soups: how many of these networks are means of the members' weights.
        heads: answers that these networks give beyond one each.
        curve: shares of the training texts on which the members are trained anew.
        trained: whether the members are to be trained, or are there already.
    """

    parts: tuple[Part, ...]
    room: Room
    rows: int
    asked: int
    judged: int
    systems: int
    reference: int
    soups: int = 0
    heads: int = 0
    curve: tuple[float, ...] = ()
    trained: bool = True

    @property
    def to_train(self) -> tuple[Part, ...]:
        """The parts of which networks are to be trained."""
        return tuple(part for part in self.parts if self.trained or part.is_student)

    @property
    def disk(self) -> dict[str, int]:
        """Bytes on disk by part; those of checkpoints and trunk only while networks are trained."""
        groups = [(part.networks, part.needs) for part in self.parts if not part.is_student]
        networks = [(part.networks, part.needs) for part in self.parts if part.is_student]
        # A student stores its concentrations beside its probabilities.
        answers = self.asked * sum(count for count, _ in groups)
        answers += self.judged * (self.systems + self.heads + len(networks))
        answers += self.judged * len(self.curve) * sum(count for count, _ in groups)
        first = self.parts[0]
        soup = first.needs.trainable if first.source == "heads" else first.needs.parameters
        members = sum((1 if own.one_network else count) * FLOAT * own.trainable for count, own in groups)
        return {
            "members": members,
            "networks": FLOAT * (sum(count * own.parameters for count, own in networks) + self.soups * soup),
            "predictions": FLOAT * self.parts[0].outline.classes * answers,
            "shift": self.reference,
            # The one before goes only when the next is there, and the last of a cycle when all have ended;
            # the members of a part of the texts lie beside the run's own until they have answered.
            "checkpoints": max(
                (
                    part.together * (part.needs.cycles + 1) * part.needs.memory.checkpoint
                    for part in self.to_train
                ),
                default=0,
            )
            + (members if self.curve and self.trained else 0),
            "embeddings": self.rows * sum(own.embedded for _, own in groups),
            "trunk": max((part.together * part.needs.mapped for part in self.to_train), default=0),
        }

    @property
    def run_bytes(self) -> int:
        """Bytes of the run folder at its fullest; what finds no room in the cache is not kept."""
        return sum(self.disk[name] for name in ("members", "networks", "predictions", "shift", "checkpoints"))

    @property
    def on_run_disk(self) -> int:
        """Bytes on the disk of the run folder at its fullest: a trunk's states too, if they are put there."""
        trunk = self.disk["trunk"]
        return self.run_bytes + (trunk if self.room.one_disk and trunk <= self.room.cache else 0)

    def held(self, part: Part) -> dict[str, int]:
        """Return the bytes that a part needs at its peak: on the device, and of the processor's memory.

        Where both are one, it is all in memory. All groups' members predict together. States for which
        the disk has no room are held in memory. Of a model that GPUs share it is what they hold together.
        """
        memory = part.needs.memory
        groups = [part] if part.is_student else [own for own in self.parts if not own.is_student]
        # Of what more GPUs share, each of fewer has a part.
        parts = [(own.needs.memory.prediction, max(1, own.gpus // part.gpus)) for own in groups]
        predicting = sum(size // share for size, share in parts)
        mapped = part.needs.mapped
        texts = memory.texts + (mapped if part.together * mapped > self.room.cache else 0)
        if part.outline.device.type == "cpu":
            return {"memory": max(part.together * (texts + max(memory.step, memory.loading)), predicting)}
        return {
            "GPU memory": max(memory.step, predicting),
            "memory": part.together * (texts + memory.loading),
        }

    @property
    def peak(self) -> int:
        """The most bytes that lie together, of memory and GPU memory."""
        return max((sum(self.held(part).values()) for part in self.to_train), default=0)

    def free_on_gpus(self, part: Part) -> int | None:
        """Return what a part may take of its GPU, or, in whole blocks, of those that share its model."""
        first = self.room.device
        if part.gpus == 1 or first is None:
            return first
        beside = part.outside_bytes
        block = max(1, (self.held(part)["GPU memory"] - beside) // part.outline.blocks)
        blocks = max(0, first - beside) // block + sum(room // block for room in self.room.beside)
        return min(first, beside) + blocks * block

    def shortages(self, part: Part) -> list[str]:
        """Return what a part, or the run, needs clearly more of than there is, in words."""
        return [
            f"{'the run' if what == 'disk' else part.name} needs {cost('bytes', size)} of {what} and "
            f"{cost('bytes', free)} is free"
            for what, (size, free) in self.short(part).items()
        ]

    def short(self, part: Part) -> dict[str, tuple[int, int]]:
        """Return what is needed and free of that of which there is clearly too little."""
        return {
            what: (size, free) for what, (size, free) in self.wanted(part).items() if size > MARGIN * free
        }

    @property
    def is_short_of_disk_alone(self) -> bool:
        """Whether more room on the disk is all that is missing."""
        return {what for part in self.to_train for what in self.short(part)} == {"disk"}

    def wanted(self, part: Part) -> dict[str, tuple[int, int]]:
        """Return what a part needs, and the run of the disk, and what is free of it, where that is known."""
        room = {
            "memory": self.room.memory,
            "GPU memory": self.free_on_gpus(part),
            "disk": self.room.output,
        }
        needed = {**self.held(part), "disk": self.on_run_disk}
        return {what: (size, free) for what, size in needed.items() if (free := room[what]) is not None}

    def fullest(self, part: Part) -> tuple[float, str]:
        """Return how full a part makes the room that there is, 1 being as full as by choice, and of what."""
        shares = [
            (
                size / max(1.0, ROOMY[what] * free),
                f"{cost('bytes', size)} of the {cost('bytes', free)} of {what} that is free",
            )
            for what, (size, free) in self.wanted(part).items()
        ]
        return max(shares, default=(0.0, ""))

    @property
    def problems(self) -> list[str]:
        """What is short, each once; nothing where all fits, as far as is known."""
        return list(dict.fromkeys(problem for part in self.to_train for problem in self.shortages(part)))

    def as_json(self) -> dict[str, Any]:
        """Return the plan as JSON holds it; seconds are right within a factor of two."""
        kinds = {(part.outline.precision, part.outline.device) for part in self.parts}
        speeds = {precision: Speed.measured(precision, device) for precision, device in kinds}
        parts = [self._part_json(part, speeds[part.outline.precision]) for part in self.parts]
        student = parts.pop() if self.parts[-1].is_student else None
        every = [*parts, student] if student else parts
        return {
            "groups": parts,
            "student": student,
            "peak_memory_bytes": self.peak,
            "disk_bytes": self.disk,
            "seconds": sum(sum(own["seconds"].values()) for own in every),
            "free_bytes": asdict(self.room),
            "fits": not self.problems,
            "problems": self.problems,
        }

    def _part_json(self, part: Part, speed: Speed) -> dict[str, Any]:
        needs = part.needs
        answered = (self.judged if part.is_student else self.asked) / len(part.texts)
        # Processes on one processor share its cores, so that they take no less time than one.
        devices = 1 if part.outline.device.type == "cpu" else part.together
        rounds = 1.0 if part.is_student else 1.0 + sum(self.curve)
        return {
            "source": part.source,
            "backbone": part.backbone.name,
            "precision": part.outline.precision,
            "device": part.outline.device.type,
            "gpus": part.gpus,
            "networks": part.networks,
            "passes": part.passes,
            "group": part.group,
            "group_chosen": part.sized,
            "processes": part.together,
            "parameters": needs.parameters,
            "trainable_parameters": needs.trainable,
            "steps": part.steps,
            "tokens_per_epoch": part.texts.tokens,
            "memory_bytes": {**asdict(needs.memory), "peak": sum(self.held(part).values())},
            "seconds": {
                "preparing": speed.seconds(needs.preparing) * rounds,
                "training": speed.seconds(needs.training) / devices * rounds,
                "predicting": speed.seconds(needs.predicting) * answered,
            },
        }
