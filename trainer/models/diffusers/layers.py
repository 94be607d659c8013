"""The layers of a diffusers denoiser by the names and in the parts of LoRA files.

For most transformers, LoRA files have the layers of the original code, which ComfyUI runs: one layer for query, key and
value, where diffusers has three. To train the same LoRA as ComfyUI does, an adapter is put on a layer that joins
diffusers' parts, and each part then returns its share of the joined layer's outputs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...adapters.dropout import RowSeeds
from ...adapters.peft_layers import AdaptedLayer, adapted, adapter_layers
from ...adapters.spec import AdapterSpec
from ...adapters.targets import is_adaptable
from ...formats.architectures import Architecture
from ...formats.layer_names import file_key, kohya_key
from ...formats.layer_tables.rows import rows as table_rows
from ...formats.names import LayerNames, Place, layer_names, names_in_form
from ...formats.portable import Part, to_portable
from ..splitting import is_part
from .verify import unmatched_in_transformer, unmatched_keys


class DenoiserLayers(ABC):
    """The layers of a denoiser that can have adapters."""

    @property
    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each layer's weight, by the layer's key in memory."""

    @abstractmethod
    def attached(self, spec: AdapterSpec, rows: RowSeeds) -> AbstractContextManager[dict[str, AdaptedLayer]]:
        """Put adapters on the denoiser inside the context, and yield them by the layer's key in memory."""

    def portable(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Convert a LoRA from kohya's format, with the adapters' keys, to the file format of the architecture."""
        return dict(state_dict)

    @abstractmethod
    def unmatched(self, path: Path, text_encoders: Mapping[str, nn.Module]) -> list[str]:
        """Return the keys of a saved LoRA that are missing or that diffusers' loader does not apply."""


def denoiser_layers(denoiser: Any, architecture: Architecture) -> DenoiserLayers:
    """Return the layers of a denoiser without adapters."""
    kind = TransformerLayers if table_rows(architecture.id) else UNetLayers
    return kind(denoiser, architecture)


class UNetLayers(DenoiserLayers):
    """The layers of a UNet, which are the same in all programs."""

    def __init__(self, unet: Any, architecture: Architecture) -> None:
        self._unet, self._architecture = unet, architecture
        self._shapes = {
            self.key_of(path): tuple(module.weight.shape)
            for path, module in unet.named_modules()
            if is_adaptable(module)
        }

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return self._shapes

    def key_of(self, path: str) -> str:
        """Return the key of a layer of the UNet in a LoRA file."""
        return file_key(self._architecture, path, layers_per_block=self._unet.config.layers_per_block)

    def attached(self, spec: AdapterSpec, rows: RowSeeds) -> AbstractContextManager[dict[str, AdaptedLayer]]:
        return adapted(self._unet, spec, self.key_of, rows)

    def unmatched(self, path: Path, text_encoders: Mapping[str, nn.Module]) -> list[str]:
        return unmatched_keys(path, self._unet, text_encoders)


class TransformerLayers(DenoiserLayers):
    """The layers of a transformer by ComfyUI's names, each of which stands for one or more layers of diffusers."""

    def __init__(self, transformer: Any, architecture: Architecture) -> None:
        self._transformer, self._architecture = transformer, architecture
        self._modules = {path: module for path, module in transformer.named_modules() if is_adaptable(module)}
        self._module_shapes = {path: tuple(module.weight.shape) for path, module in self._modules.items()}
        self._names = {
            _native_path(names): names
            for names in layer_names(architecture).values()
            if all(path in self._modules for path, _ in _parts(names))
        }

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        shapes = {}
        for names in self._names.values():
            of_parts = [self._module_shapes[path] for path, _ in _parts(names)]
            shapes[names.key] = (sum(shape[0] for shape in of_parts), *of_parts[0][1:])
        return shapes

    @contextmanager
    def attached(self, spec: AdapterSpec, rows: RowSeeds) -> Iterator[dict[str, AdaptedLayer]]:
        tree = self._tree()
        with adapted(tree, spec, kohya_key, rows) as layers:
            placed = []
            try:
                for native, layer in adapter_layers(tree).items():
                    for path, replacement in self._replacements(self._names[native], layer):
                        self._transformer.set_submodule(path, replacement)
                        placed.append(path)
                yield layers
            finally:
                for path in placed:
                    self._transformer.set_submodule(path, self._modules[path])

    def _tree(self) -> nn.Module:
        """Return the layers as modules of a tree whose paths are ComfyUI's names."""
        tree = nn.Module()
        for native, names in self._names.items():
            *parents, name = native.split(".")
            module = tree
            for parent in parents:
                if parent not in module._modules:
                    module.add_module(parent, nn.Module())
                module = module.get_submodule(parent)
            module.add_module(name, self._layer(names))
        return tree

    def _layer(self, names: LayerNames) -> nn.Module:
        parts = _parts(names)
        modules = [self._modules[path] for path, _ in parts]
        if _is_one(parts):
            return modules[0]
        linear, places = [module for module in modules if isinstance(module, nn.Linear)], [place for _, place in parts]
        return JoinedOutputs(linear, places) if is_part(linear[0].weight) else joined(linear, places)

    def _replacements(self, names: LayerNames, layer: Any) -> Iterator[tuple[str, nn.Module]]:
        """Yield the modules that take the places of a layer's parts, by diffusers' path."""
        parts = _parts(names)
        if _is_one(parts):
            yield parts[0][0], layer
            return
        shared = SharedOutput(layer, len(parts))
        outputs = self.shapes[names.key][0]
        for path, place in parts:
            yield path, PartOfLayer(shared, place, outputs)

    def portable(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self._architecture.is_kohya:
            return dict(state_dict)
        shapes = self.shapes
        parts = {
            names.key: [
                Part(name, None if _is_one([(name, place)]) else _rows(place, shapes[names.key][0]))
                for name, place in names_in_form(names, self._architecture, "auto")
            ]
            for names in self._names.values()
        }
        return to_portable(state_dict, parts)

    def unmatched(self, path: Path, text_encoders: Mapping[str, nn.Module]) -> list[str]:
        return unmatched_in_transformer(path, self._architecture, self._module_shapes)


def _native_path(names: LayerNames) -> str:
    return names.native.removeprefix("diffusion_model.")


def _parts(names: LayerNames) -> list[tuple[str, Place]]:
    """Return diffusers' paths of a layer's parts and where each is in the layer."""
    return [(name.removeprefix("transformer."), place) for name, place in names.diffusers]


def _is_one(parts: Sequence[tuple[str, Place]]) -> bool:
    """Return whether a layer is a layer of diffusers as it is."""
    return len(parts) == 1 and parts[0][1].is_whole and parts[0][1].reorder is None


def _rows(place: Place, outputs: int) -> Tensor:
    """Return the indices of the rows of a layer with this many outputs that a part has, in the part's order."""
    rows = torch.arange(outputs)[place.rows(outputs)]
    return rows if place.reorder is None else rows[torch.argsort(place.reorder(torch.arange(len(rows))))]


def joined(layers: Sequence[nn.Linear], places: Sequence[Place]) -> nn.Linear:
    """Return a layer whose outputs are those of several layers, in the order of their places.

    No weight is held twice: those of the layers become views of the joined one, unless their rows are in another order.
    """
    outputs = sum(layer.out_features for layer in layers)
    first = layers[0]
    whole = nn.Linear(first.in_features, outputs, bias=first.bias is not None, device="meta", dtype=first.weight.dtype)
    whole.train(first.training)
    for name in ("weight", "bias") if first.bias is not None else ("weight",):
        pieces = [
            getattr(layer, name).data if place.reorder is None else place.reorder(getattr(layer, name).data)
            for layer, place in zip(layers, places, strict=True)
        ]
        data = torch.cat(pieces)
        setattr(whole, name, nn.Parameter(data, requires_grad=False))
        for layer, place in zip(layers, places, strict=True):
            if place.reorder is None:
                setattr(layer, name, nn.Parameter(data[place.rows(outputs)], requires_grad=False))
    return whole


class JoinedOutputs(nn.Linear):
    """A layer whose outputs are those of several layers, computed by these, of whose weights this process has parts.

    Its weight only has the shape of the joined one, which is what adapters ask for.

    Args:
        layers: the layers.
        places: their places in the joined layer, in the order of its outputs.
    """

    def __init__(self, layers: Sequence[nn.Linear], places: Sequence[Place]) -> None:
        nn.Module.__init__(self)
        first = layers[0]
        self.in_features, self.out_features = first.in_features, sum(layer.out_features for layer in layers)
        number = torch.empty(1, dtype=first.weight.dtype, device=first.weight.device)
        self.weight = nn.Parameter(number.expand(self.out_features, self.in_features), requires_grad=False)
        self.register_parameter("bias", None)
        orders = [
            None if place.reorder is None else place.reorder(torch.arange(layer.out_features, device=number.device))
            for layer, place in zip(layers, places, strict=True)
        ]
        self._parts = tuple(zip(layers, orders, strict=True))  # not modules of its own: they are in the model

    def forward(self, input: Tensor) -> Tensor:
        outputs = [layer(input) for layer, _ in self._parts]
        return torch.cat(
            [
                output if order is None else output.index_select(-1, order)
                for output, (_, order) in zip(outputs, self._parts, strict=True)
            ],
            -1,
        )


class SharedOutput(nn.Module):
    """A joined layer that is computed once for all of its parts.

    Args:
        layer: the joined layer, with its adapter.
        parts: the number of its parts, each of which asks for the output once.
    """

    def __init__(self, layer: nn.Module, parts: int) -> None:
        super().__init__()
        self.layer = layer
        self._parts = parts
        self._input: Tensor | None = None
        self._output: Tensor | None = None
        self._waiting = 0

    def forward(self, x: Tensor) -> Tensor:
        """Return the output for an input that all parts get as the same object."""
        if self._input is not x or self._output is None:
            self._input, self._output, self._waiting = x, self.layer(x), self._parts
        output = self._output
        self._waiting -= 1
        if not self._waiting:
            self._input = self._output = None
        return output


class PartOfLayer(nn.Module):
    """A layer of diffusers that returns its share of a joined layer's outputs.

    Args:
        shared: the joined layer.
        place: the place of the part in it.
        outputs: the number of the joined layer's outputs.
    """

    def __init__(self, shared: SharedOutput, place: Place, outputs: int) -> None:
        super().__init__()
        self.shared = shared
        self._range = place.rows(outputs)
        self._order = None if place.reorder is None else _rows(place, outputs)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.shared(x)
        if self._order is None:
            return output[..., self._range]
        return output.index_select(-1, self._order.to(output.device))
