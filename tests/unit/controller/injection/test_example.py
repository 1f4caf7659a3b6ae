"""The example of a Pod with its agent written by hand: exactly what injection would write."""

import copy
from pathlib import Path

import yaml

from controller.injection.pod import inject
from controller.injection.release import SIDECAR_IMAGE
from controller.injection.sidecar import Settings

EXAMPLE = Path(__file__).parents[4] / "deploy" / "examples" / "sidecar.yaml"


def test_the_example_is_what_injection_writes():
    written = yaml.safe_load(EXAMPLE.read_text())
    bare = copy.deepcopy(written)
    del bare["spec"]["initContainers"], bare["spec"]["volumes"]
    assert inject(bare, Settings(SIDECAR_IMAGE)).pod == written


def test_to_the_example_nothing_is_added():
    written = yaml.safe_load(EXAMPLE.read_text())
    outcome = inject(written, Settings(SIDECAR_IMAGE))
    assert (outcome.changed, outcome.refused) == (False, None)
