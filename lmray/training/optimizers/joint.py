"""Several optimizers as one."""

from typing import Any

from torch.optim import Optimizer


class Joint(Optimizer):
    """Optimizers of different parameters that step, save and load as one.

    State and groups are theirs, so that what is loaded here is loaded there.
    """

    def __init__(self, *optimizers: Optimizer) -> None:
        """Takes the groups of `optimizers` in their order."""
        self._optimizers = optimizers
        self._sizes = [len(optimizer.param_groups) for optimizer in optimizers]
        super().__init__([group for each in optimizers for group in each.param_groups], {})
        self._share()

    def _share(self) -> None:
        start = 0
        for optimizer, size in zip(self._optimizers, self._sizes, strict=True):
            optimizer.state = self.state
            optimizer.param_groups = self.param_groups[start : start + size]
            start += size

    def step(self, closure: Any = None) -> Any:
        """A step of each; a `closure` is called by the first."""
        results = [self._optimizers[0].step(closure)]
        results += [optimizer.step() for optimizer in self._optimizers[1:]]
        return results[0]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Replaces state and groups, here and in each."""
        super().load_state_dict(state_dict)
        self._share()
