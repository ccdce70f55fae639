"""`Optimizer`: parameter groups, state, and what every optimizer does around its step."""

from __future__ import annotations

import functools
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from copy import deepcopy
from itertools import chain
from typing import Any, TypeAlias

from .. import _flambeau
from .._flambeau import (
    Tensor,
    _any_complex,
    _any_sparse,
    _gradients,
    _profile_enter,
    _profile_exit,
    _profile_on,
    _set_grad_enabled,
    is_grad_enabled,
)
from ..autograd.grad_mode import enable_grad
from ..nn.parameter import Parameter
from ..utils.hooks import RemovableHandle

ParamsT: TypeAlias = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]]
DeviceDict: TypeAlias = dict[Any, Tensor]
StateDict: TypeAlias = dict[str, Any]


class _Required:
    def __repr__(self) -> str:
        return "<required parameter>"


required = _Required()


def _number(value: Any) -> float:
    """A hyperparameter as a Python number."""
    if not isinstance(value, Tensor):
        return value
    if value.numel() != 1:
        raise ValueError(
            f"Tensor lr must be 1-element, and so must other settings that are tensors; got {list(value.shape)}"
        )
    return float(value)


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


_global_pre_hooks: OrderedDict[int, Any] = OrderedDict()
_global_post_hooks: OrderedDict[int, Any] = OrderedDict()


def register_optimizer_step_pre_hook(hook: Any) -> RemovableHandle:
    """Calls `hook(optimizer, args, kwargs)` before each step of every optimizer."""
    handle = RemovableHandle(_global_pre_hooks)
    _global_pre_hooks[handle.id] = hook
    return handle


def register_optimizer_step_post_hook(hook: Any) -> RemovableHandle:
    """Calls `hook(optimizer, args, kwargs)` after each step of every optimizer."""
    handle = RemovableHandle(_global_post_hooks)
    _global_post_hooks[handle.id] = hook
    return handle


class Optimizer:
    """Base of all optimizers. A subclass gives `_update(group, params, grads)`, called once a group and step."""

    # Whether sparse gradients are understood.
    _sparse = False

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        if isinstance(params, Tensor):
            raise TypeError(
                f"params argument given to the optimizer should be an iterable of Tensors or dicts, but got {type(params).__name__}"
            )
        if defaults.get("fused"):
            if defaults.get("differentiable"):
                raise RuntimeError("`fused` does not support `differentiable`")
            if defaults.get("foreach"):
                raise RuntimeError("`fused` and `foreach` cannot be `True` together.")
        self.defaults = defaults
        self.state: defaultdict[Tensor, Any] = defaultdict(dict)
        self.param_groups: list[dict[str, Any]] = []
        self._optimizer_step_pre_hooks: OrderedDict[int, Any] = OrderedDict()
        self._optimizer_step_post_hooks: OrderedDict[int, Any] = OrderedDict()
        self._optimizer_state_dict_pre_hooks: OrderedDict[int, Any] = OrderedDict()
        self._optimizer_state_dict_post_hooks: OrderedDict[int, Any] = OrderedDict()
        self._optimizer_load_state_dict_pre_hooks: OrderedDict[int, Any] = OrderedDict()
        self._optimizer_load_state_dict_post_hooks: OrderedDict[int, Any] = OrderedDict()
        groups = list(params)
        if not groups:
            raise ValueError("optimizer got an empty parameter list")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(dict(group))

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds parameters with their own settings; what a group leaves out is the optimizer's default."""
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group)}")
        params = param_group["params"]
        if isinstance(params, Tensor):
            params = [params]
        elif isinstance(params, (set, frozenset)):
            raise TypeError(
                "optimizer parameters need to be organized in ordered collections, but the ordering of tensors in sets will change "
                "between runs. Please use a list instead."
            )
        params = list(params)
        named = [isinstance(p, tuple) for p in params]
        if any(named):
            if not all(named):
                raise ValueError("all optimizer params should be with/without names. Some param names are missing")
            param_group["param_names"] = [name for name, _ in params]
            params = [p for _, p in params]
        param_group["params"] = params
        for p in params:
            if not isinstance(p, Tensor):
                raise TypeError("optimizer can only optimize Tensors, but one of the params is " + type(p).__name__)
            if not self.defaults.get("differentiable") and not (p.is_leaf or p.retains_grad):
                raise ValueError("can't optimize a non-leaf Tensor")
        for name, default in self.defaults.items():
            if default is required and name not in param_group:
                raise ValueError(f"parameter group didn't specify a value of required optimization parameter {name}")
            param_group.setdefault(name, default)
        held = {id(p) for group in self.param_groups for p in group["params"]}
        if len({id(p) for p in params}) != len(params):
            import warnings

            warnings.warn(
                "optimizer contains a parameter group with duplicate parameters; in future, this will cause an error", stacklevel=3
            )
        if any(id(p) in held for p in params):
            raise ValueError("some parameters appear in more than one parameter group")
        if self.param_groups and ("param_names" in param_group) != ("param_names" in self.param_groups[0]):
            which = "with" if "param_names" in param_group else "without"
            raise ValueError(
                "all optimizer param groups should be with/without names. "
                f"cannot add param group {which} names to the optimizer"
            )
        self.param_groups.append(param_group)

    # ---- stepping ------------------------------------------------------------------------------------

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates the parameters by their gradients; a closure computes these (and the loss) anew."""
        hooked = self._optimizer_step_pre_hooks or self._optimizer_step_post_hooks or _global_pre_hooks or _global_post_hooks
        run = self._hooked_step if hooked else self._step
        if _profile_on():
            number = _profile_enter(f"Optimizer.step#{type(self).__name__}.step")
            try:
                return run(closure)
            finally:
                _profile_exit(number)
        return run(closure)

    def _step(self, closure: Callable[[], Any] | None) -> Any:
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        recording = is_grad_enabled()
        if recording:
            _set_grad_enabled(False)
        try:
            for group in self.param_groups:
                params, grads = _gradients(group["params"])
                if params:
                    if not self._sparse and _any_sparse(grads):
                        self._refuse_sparse()
                    if group.get("differentiable"):
                        _set_grad_enabled(recording)
                        self._differentiable_update(group, params, grads)
                        _set_grad_enabled(False)
                    elif _any_complex(params):
                        self._update_complex(group, params, grads)
                    else:
                        self._update(group, params, grads)
        finally:
            if recording:
                _set_grad_enabled(True)
        return loss

    def _refuse_sparse(self) -> None:
        name = type(self).__name__
        advice = ", please consider SparseAdam instead" if name in ("Adam", "AdamW") else ""
        name = "Adam" if advice else name
        raise RuntimeError(f"{name} does not support sparse gradients{advice}")

    def _hooked_step(self, closure: Any) -> Any:
        args: Any = (self, closure)
        kwargs: dict[str, Any] = {}
        for hook in [*_global_pre_hooks.values(), *self._optimizer_step_pre_hooks.values()]:
            result = hook(self, args, kwargs)
            if result is not None:
                if not (isinstance(result, tuple) and len(result) == 2):
                    raise RuntimeError(f"step pre-hook must return None or a tuple of (new_args, new_kwargs), but got {result}.")
                args, kwargs = result
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        loss = self._step(closure)
        for hook in [*self._optimizer_step_post_hooks.values(), *_global_post_hooks.values()]:
            hook(self, args, kwargs)
        return loss

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        raise NotImplementedError

    def _differentiable_update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        """The update as recorded operators. What updates by a kernel of its own overrides this with a composite."""
        self._update(group, params, grads)

    def _update_complex(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        """Complex parameters as pairs of real ones, each with a step size of its own; their state stays complex."""
        as_real, as_complex = _flambeau.operators["view_as_real"], _flambeau.operators["view_as_complex"]
        views, real_params, real_grads = [], [], []
        for p, g in zip(params, grads, strict=True):
            if not p.is_complex():
                real_params.append(p)
                real_grads.append(g)
                continue
            pair = as_real(p.detach())
            held = self.state.get(p, {})
            state = {k: as_real(v) if isinstance(v, Tensor) and v.is_complex() else v for k, v in held.items()}
            if state:
                self.state[pair] = dict(state)
            views.append((p, pair, state))
            real_params.append(pair)
            real_grads.append(as_real(g.resolve_conj() if g.is_complex() else g.to(p.dtype)))
        self._update(group, real_params, real_grads)
        for p, pair, before in views:
            self._forget(pair)
            after = self.state.pop(pair, {})
            held = self.state[p] if after else {}
            for key, value in after.items():
                if isinstance(value, Tensor) and value.shape == pair.shape:
                    if value is not before.get(key):
                        held[key] = as_complex(value)
                else:
                    held[key] = value

    def _forget(self, param: Tensor) -> None:
        """Drops what is kept for a parameter beside its state."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drops the gradients, or sets them to zero."""
        for group in self.param_groups:
            for p in group["params"]:
                if set_to_none:
                    p.grad = None
                elif p.grad is not None:
                    p.grad = p.grad.detach().zero_()

    # ---- state ---------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """State and settings, with parameters named by their position."""
        for hook in self._optimizer_state_dict_pre_hooks.values():
            hook(self)
        index: dict[int, int] = {}
        groups = []
        for group in self.param_groups:
            packed = {k: v for k, v in group.items() if k != "params"}
            for p in group["params"]:
                index.setdefault(id(p), len(index))
            packed["params"] = [index[id(p)] for p in group["params"]]
            groups.append(packed)
        state = {(index[id(k)] if isinstance(k, Tensor) else k): v for k, v in self.state.items()}
        result: dict[str, Any] = {"state": state, "param_groups": groups}
        for hook in self._optimizer_state_dict_post_hooks.values():
            changed = hook(self, result)
            if changed is not None:
                result = changed
        return result

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave; tensors move to their parameter's device and type."""
        state_dict = dict(state_dict)
        for hook in self._optimizer_load_state_dict_pre_hooks.values():
            changed = hook(self, state_dict)
            if changed is not None:
                state_dict = changed
        groups, saved = self.param_groups, deepcopy(state_dict["param_groups"])
        if len(groups) != len(saved):
            raise ValueError("loaded state dict has a different number of parameter groups")
        if any(len(g["params"]) != len(s["params"]) for g, s in zip(groups, saved, strict=True)):
            raise ValueError("loaded state dict contains a parameter group that doesn't match the size of optimizer's group")
        ids = chain.from_iterable(s["params"] for s in saved)
        params = chain.from_iterable(g["params"] for g in groups)
        by_id = dict(zip(ids, params, strict=True))

        def cast(param: Tensor, value: Any, key: str | None = None) -> Any:
            if isinstance(value, Tensor):
                if key == "step":
                    return value.clone()
                if param.is_floating_point():
                    return value.to(dtype=param.dtype, device=param.device).clone()
                return value.to(device=param.device).clone()
            if isinstance(value, dict):
                return {k: cast(param, v, k) for k, v in value.items()}
            if isinstance(value, (list, tuple)):
                return type(value)(cast(param, v) for v in value)
            return value

        self.state = defaultdict(dict)
        for key, value in state_dict["state"].items():
            if key in by_id:
                self.state[by_id[key]] = cast(by_id[key], value)
            else:
                self.state[key] = value
        for group, new in zip(groups, saved, strict=True):
            new["params"] = group["params"]
            if "param_names" in group:
                new.setdefault("param_names", group["param_names"])
        self.param_groups = saved
        for hook in self._optimizer_load_state_dict_post_hooks.values():
            hook(self)

    @staticmethod
    def _group_tensors_by_device_and_dtype(
        tensorlistlist: list[list[Tensor | None]], with_indices: bool = False
    ) -> dict[tuple[Any, Any], tuple[list[list[Tensor | None]], list[int]]]:
        """Parallel lists of tensors parted by the first list's devices and dtypes."""
        groups: dict[tuple[Any, Any], tuple[list[list[Tensor | None]], list[int]]] = {}
        for i, row in enumerate(zip(*tensorlistlist, strict=True)):
            first = row[0]
            if first is None:
                raise RuntimeError("the first list has to hold a tensor at every place")
            lists, indices = groups.setdefault((first.device, first.dtype), ([[] for _ in row], []))
            for column, tensor in zip(lists, row, strict=True):
                column.append(tensor)
            if with_indices:
                indices.append(i)
        return groups

    def __getstate__(self) -> dict[str, Any]:
        return {"defaults": self.defaults, "state": self.state, "param_groups": self.param_groups}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for name in ("step_pre", "step_post", "state_dict_pre", "state_dict_post", "load_state_dict_pre", "load_state_dict_post"):
            self.__dict__.setdefault(f"_optimizer_{name}_hooks", OrderedDict())

    def _register(self, hooks: Any, hook: Any, prepend: bool = False) -> RemovableHandle:
        handle = RemovableHandle(hooks)
        hooks[handle.id] = hook
        if prepend:
            hooks.move_to_end(handle.id, last=False)
        return handle

    def register_step_pre_hook(self, hook: Any) -> RemovableHandle:
        """Calls `hook(optimizer, args, kwargs)` before each step."""
        return self._register(self._optimizer_step_pre_hooks, hook)

    def register_step_post_hook(self, hook: Any) -> RemovableHandle:
        """Calls `hook(optimizer, args, kwargs)` after each step."""
        return self._register(self._optimizer_step_post_hooks, hook)

    def register_state_dict_pre_hook(self, hook: Any, prepend: bool = False) -> RemovableHandle:
        """Calls `hook(optimizer)` before `state_dict`."""
        return self._register(self._optimizer_state_dict_pre_hooks, hook, prepend)

    def register_state_dict_post_hook(self, hook: Any, prepend: bool = False) -> RemovableHandle:
        """Calls `hook(optimizer, state_dict)` after `state_dict`."""
        return self._register(self._optimizer_state_dict_post_hooks, hook, prepend)

    def register_load_state_dict_pre_hook(self, hook: Any, prepend: bool = False) -> RemovableHandle:
        """Calls `hook(optimizer, state_dict)` before `load_state_dict`."""
        return self._register(self._optimizer_load_state_dict_pre_hooks, hook, prepend)

    def register_load_state_dict_post_hook(self, hook: Any, prepend: bool = False) -> RemovableHandle:
        """Calls `hook(optimizer)` after `load_state_dict`."""
        return self._register(self._optimizer_load_state_dict_post_hooks, hook, prepend)

    def __repr__(self) -> str:
        text = type(self).__name__ + " ("
        for i, group in enumerate(self.param_groups):
            text += f"\nParameter Group {i}\n"
            text += "".join(f"    {key}: {group[key]}\n" for key in sorted(group) if key != "params")
        return text + ")"


def _state(optimizer: Optimizer, params: Iterable[Tensor], create: Callable[[Tensor], dict[str, Any]]) -> list[dict[str, Any]]:
    """The state of each parameter, made on its first step."""
    states = []
    for p in params:
        state = optimizer.state[p]
        if not state:
            state.update(create(p))
        states.append(state)
    return states


# What optimizers that other libraries derive from PyTorch's own ask for. Updates here are one call for a whole list, or operators.


def _default_to_fused_or_foreach(params: list[Tensor], differentiable: bool, use_fused: bool = False) -> tuple[bool, bool]:
    """Whether (fused, foreach) forms are to be taken where nobody has said so."""
    if differentiable:
        return False, False
    plain = all(p is None or (type(p) in (Tensor, Parameter) and p.device.type == "cuda") for p in params)
    fused = use_fused and plain and all(p is None or p.is_floating_point() for p in params)
    return fused, plain and not fused


def _get_capturable_supported_devices(supports_xla: bool = True) -> list[str]:
    return ["cuda", "xpu", "hpu", "privateuseone", *(["xla"] if supports_xla else [])]


def _get_value(x: Any) -> Any:
    return x.item() if isinstance(x, Tensor) else x


def _stack_if_compiling(x: Any) -> Any:
    return x


def _view_as_real(params: list[Tensor], *state_and_grads: list[Tensor]) -> None:
    """Complex tensors of the lists as pairs of real numbers, in place."""
    for i, p in enumerate(params):
        if p.is_complex():
            params[i] = _flambeau.operators["view_as_real"](p)
            for tensors in state_and_grads:
                tensors[i] = _flambeau.operators["view_as_real"](tensors[i])


def _get_scalar_dtype(is_fused: bool | None = None) -> Any:
    if is_fused:
        return _flambeau.float32
    return _flambeau.float64 if _flambeau.get_default_dtype() == _flambeau.float64 else _flambeau.float32


def _use_grad_for_differentiable(func: Callable[..., Any]) -> Callable[..., Any]:
    """`step` without gradients, unless the optimizer's default says that it is differentiable."""

    @functools.wraps(func)
    def step(*args: Any, **kwargs: Any) -> Any:
        before = is_grad_enabled()
        try:
            _set_grad_enabled(bool(args[0].defaults["differentiable"]))
            return func(*args, **kwargs)
        finally:
            _set_grad_enabled(before)

    return step


def _disable_dynamo_if_unsupported(single_tensor_fn: Any = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return lambda func: func


_zeros_like = _flambeau.operators["zeros_like"]
__all__ = ["Optimizer", "register_optimizer_step_post_hook", "register_optimizer_step_pre_hook", "required"]
