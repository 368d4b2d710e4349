"""Fang's attack on Krum: as far against the benign direction as Krum still picks."""

import math
from dataclasses import dataclass

import torch

from byzflower.attacks.base import AttackView, CollusiveAttack, repeat
from byzflower.numerics.reductions import gram, mean, products, squared_distances, squared_norms

_HALVINGS = 60


def fang_krum(benign: torch.Tensor, num_byzantine: int) -> torch.Tensor:
    """Return -lambda sign(mu), lambda halved from its bound until Krum picks it (Fang et al., 2020).

    Krum is simulated on distances computed from the benign rows' inner products, so that the cost of a trial
    does not depend on d. It sees n = m + f uploads, of which the attackers' are equal. The attack is
    relative to the global model, i.e. to pseudo-gradient 0. Where n <= 2f + 2, i.e. where Krum is undefined,
    it is simulated with at least one neighbour. A tie counts as a failure, since Krum takes the lower
    index. If no lambda succeeds, the last and smallest is used.

    Args:
        benign: (m, d) benign pseudo-gradients.
        num_byzantine: f, at least 1.

    Returns:
        (d,) the upload of every attacker.
    """
    m, d = benign.shape
    mu = mean(benign)
    sign = mu.sign()
    alongside = products(benign, sign)[:, 0]
    norms = squared_norms(benign)
    sign_norm = float(squared_norms(sign[None]))
    neighbours = max(m - 2, 1)  # n - f - 2
    among = squared_distances(gram(benign, origin=mu)).fill_diagonal_(torch.inf)
    closest = among.sort(dim=1).values[:, : min(neighbours, m - 1)].sum(dim=1)
    widest = math.sqrt(float(closest.min()) / (max(m - num_byzantine - 1, 1) * d))
    step = widest + math.sqrt(float(norms.max()) / d)
    for _ in range(_HALVINGS):
        to_attack = (norms + 2 * step * alongside + step * step * sign_norm).clamp_(min=0)
        if _krum_picks_attack(among, to_attack, num_byzantine, neighbours):
            break
        step /= 2
    return sign.mul_(-step)


def _krum_picks_attack(among: torch.Tensor, to_attack: torch.Tensor, f: int, neighbours: int) -> bool:
    """Whether an attacker's Krum score is below every benign one.

    Args:
        among: squared distances (m, m) of benign rows, infinite on the diagonal.
        to_attack: squared distances (m,) of benign rows to the attackers' one vector.
        f: number of attackers.
        neighbours: of which Krum sums the distances.
    """
    score = to_attack.sort().values[: max(neighbours - (f - 1), 0)].sum()
    everybody = torch.cat([among, to_attack[:, None].expand(-1, f)], dim=1)
    others = everybody.sort(dim=1).values[:, :neighbours].sum(dim=1)
    return bool(score < others.min())


@dataclass(frozen=True, kw_only=True)
class FangKrum(CollusiveAttack):
    """Byzantine clients upload -lambda sign(mu), the farthest that Krum still picks."""

    def craft(self, view: AttackView) -> torch.Tensor:
        """Apply `fang_krum`."""
        return repeat(fang_krum(view.benign, view.num_byzantine), view.num_byzantine)
