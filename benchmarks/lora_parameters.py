"""How many weights sixteen LoRA members add to one model: rank 8 on queries and values, linear heads."""

from __future__ import annotations

from benchmarks.measure import Result, load, write
from credibly.members import lora
from credibly.settings import BackboneSettings, LoraSettings

NAME = "lora_parameters"
MEMBERS = 16
TARGETS = {"minilm": ["query", "value"], "smollm2": ["q_proj", "v_proj"]}


def main() -> None:
    """Count the weights of members that are really built, on an encoder and a decoder."""
    load_before = load()
    shares = {}
    for name, targets in TARGETS.items():
        settings = LoraSettings(count=MEMBERS, r=8, target_modules=targets)
        members = lora.build(BackboneSettings(name=name), settings, ("no", "yes"), range(MEMBERS))
        shares[name] = MEMBERS * members.member_parameters / members.shared_parameters
    write(
        Result(
            name=NAME,
            what="weights that sixteen LoRA members (r 8, q and v, linear heads) add / those of one model",
            ratio=max(shares.values()),
            unit="share of the model's weights",
            sides={name: [share] for name, share in shares.items()},
            at_most=0.12,
        ),
        load_before,
    )


if __name__ == "__main__":
    main()
