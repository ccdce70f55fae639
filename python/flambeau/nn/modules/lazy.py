"""Modules that learn some sizes from their first input."""

from __future__ import annotations

from typing import Any

from ..parameter import is_lazy


class LazyModuleMixin:
    """Goes before a module class; the subclass gives `initialize_parameters(*args)` and `cls_to_become`.

    A forward pre-hook materializes the parameters on the first call, after which the object is of the plain class.
    """

    cls_to_become: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._initialize_hook = self.register_forward_pre_hook(type(self)._infer_parameters, with_kwargs=True)  # type: ignore[attr-defined]
        self._load_hook = self._register_load_state_dict_pre_hook(type(self)._lazy_load_hook, with_module=True)  # type: ignore[attr-defined]

    def has_uninitialized_params(self) -> bool:
        """Whether some parameter or buffer has no shape yet."""
        held = [*self._parameters.values(), *self._buffers.values()]  # type: ignore[attr-defined]
        return any(is_lazy(t) for t in held)

    def initialize_parameters(self, *args: Any, **kwargs: Any) -> None:
        """Gives the parameters their shapes from the first call's arguments."""
        raise NotImplementedError(f"initialize_parameters is not implemented for {type(self).__name__}")

    def _infer_parameters(self, args: Any, kwargs: Any = None) -> None:
        self.initialize_parameters(*args, **(kwargs or {}))
        if self.has_uninitialized_params():
            raise RuntimeError(f"module {self._get_name()} has not been fully initialized")  # type: ignore[attr-defined]
        self._initialize_hook.remove()
        self._load_hook.remove()
        del self._initialize_hook, self._load_hook
        if self.cls_to_become is not None:
            self.__class__ = self.cls_to_become

    def _lazy_load_hook(self, state_dict: Any, prefix: str, *_: Any) -> None:
        for registry in (self._parameters, self._buffers):  # type: ignore[attr-defined]
            for name, held in registry.items():
                key = prefix + name
                if key in state_dict and is_lazy(held) and not is_lazy(state_dict[key]):
                    held.materialize(state_dict[key].shape)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        for registry in (self._parameters, self._buffers):  # type: ignore[attr-defined]
            for name, held in registry.items():
                if held is not None and name not in self._non_persistent_buffers_set:  # type: ignore[attr-defined]
                    destination[prefix + name] = held if is_lazy(held) or keep_vars else held.detach()
