"""The same for one process, without an installation: ``run_sim.py --import lab``."""

from my_rules.attacks import Forget, Opposite
from my_rules.models import Linear
from my_rules.rules import ClippedMean

from byzflower.attacks import ATTACKS
from byzflower.models import MODELS
from byzflower.strategies import STRATEGIES

STRATEGIES.register("clippedmean", ClippedMean)
ATTACKS.register("opposite", Opposite)
ATTACKS.register("forget", Forget)
MODELS.register("linear", Linear)
