"""The records of TensorBoard's logs."""

from __future__ import annotations

import io
import json
import struct
import zlib
from typing import Any

import numpy as np
from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto

from ..._flambeau import Tensor


def make_np(x: Any) -> np.ndarray:
    """Values as a NumPy array with at least one dimension."""
    if isinstance(x, list):
        return np.array(x)
    if isinstance(x, np.ndarray):
        return x
    if np.isscalar(x):
        return np.array([x])
    if isinstance(x, Tensor):
        x = x.detach().cpu()
        if x.is_floating_point() and x.element_size() < 4:
            x = x.float()
        return x.numpy()
    raise NotImplementedError(f"Got {type(x)}, but numpy array or torch tensor are expected.")


def _metadata(plugin: str, content: bytes = b"", **fields: Any) -> SummaryMetadata:
    data = SummaryMetadata.PluginData(plugin_name=plugin, content=content)
    return SummaryMetadata(plugin_data=data, **fields)


def _shape(*sizes: int) -> TensorShapeProto:
    return TensorShapeProto(dim=[TensorShapeProto.Dim(size=n) for n in sizes])


def tensor_proto(tag: str, tensor: Any) -> Summary:
    """A tensor, as it is."""
    values = make_np(tensor)
    kinds = {
        "float16": 19,
        "float32": 1,
        "float64": 2,
        "int32": 3,
        "int64": 9,
        "uint8": 4,
        "int8": 6,
        "int16": 5,
        "bool": 10,
    }
    kind = kinds.get(values.dtype.name)
    if kind is None:
        raise ValueError(f"{values.dtype} is not supported")
    content = TensorProto(
        dtype=kind, tensor_shape=_shape(*values.shape), tensor_content=np.ascontiguousarray(values).tobytes()
    )
    return Summary(value=[Summary.Value(tag=tag, metadata=_metadata("tensor"), tensor=content)])


def scalar(
    name: str, tensor: Any, collections: Any = None, new_style: bool = False, double_precision: bool = False
) -> Summary:
    """A number."""
    values = np.asarray(make_np(tensor)).squeeze()
    if values.ndim != 0:
        raise AssertionError(
            f"Tensor should contain one element (0 dimensions). Was given size: {values.size} and {values.ndim} dimensions."
        )
    number = float(values)
    if not new_style:
        return Summary(value=[Summary.Value(tag=name, simple_value=number)])
    content = (
        TensorProto(double_val=[number], dtype=2) if double_precision else TensorProto(float_val=[number], dtype=1)
    )
    return Summary(value=[Summary.Value(tag=name, tensor=content, metadata=_metadata("scalars"))])


def histogram_raw(
    name: str,
    min: float,
    max: float,
    num: float,
    sum: float,
    sum_squares: float,
    bucket_limits: Any,
    bucket_counts: Any,
) -> Summary:
    """A histogram that was counted elsewhere."""
    hist = HistogramProto(
        min=min,
        max=max,
        num=num,
        sum=sum,
        sum_squares=sum_squares,
        bucket_limit=list(bucket_limits),
        bucket=list(bucket_counts),
    )
    return Summary(value=[Summary.Value(tag=name, histo=hist)])


def histogram(name: str, values: Any, bins: Any, max_bins: int | None = None) -> Summary:
    """How often values occur."""
    flat = make_np(values).astype(float).reshape(-1)
    if flat.size == 0:
        raise ValueError("The input has no element.")
    counts, limits = np.histogram(flat, bins=bins)
    if max_bins is not None and len(counts) > max_bins:
        step = -(-len(counts) // max_bins)
        counts = np.add.reduceat(counts, np.arange(0, len(counts), step))
        limits = np.append(limits[:-1:step], limits[-1])
    used = np.flatnonzero(counts)
    first, last = int(used[0]), int(used[-1])
    # One empty bucket before the first that is used, so that its lower edge is known.
    if first > 0:
        counts, limits = counts[first - 1 : last + 1], limits[first : last + 2]
    else:
        counts, limits = np.concatenate([[0], counts[: last + 1]]), limits[: last + 2]
    return histogram_raw(
        name,
        float(flat.min()),
        float(flat.max()),
        len(flat),
        float(flat.sum()),
        float(flat.dot(flat)),
        limits.tolist(),
        counts.tolist(),
    )


def to_hwc(values: np.ndarray, dataformats: str) -> np.ndarray:
    """Pictures as [height, width, 3]; a batch side by side."""
    formats = dataformats.upper()
    if len(set(formats)) != len(formats) or len(formats) != values.ndim:
        raise AssertionError(
            f"You can not use the same dimension shordhand twice, and the tensor needs {len(formats)} dimensions: "
            f"size of input tensor and input format are different. tensor shape: {values.shape}, input_format: {dataformats}"
        )
    if len(formats) == 4:
        batch = values.transpose([formats.find(c) for c in "NCHW"])
        n, c, h, w = batch.shape
        columns = min(n, 8)
        rows = -(-n // columns)
        sheet = np.zeros((c, h * rows, w * columns), batch.dtype)
        for i in range(n):
            y, x = i // columns * h, i % columns * w
            sheet[:, y : y + h, x : x + w] = batch[i]
        values = sheet.transpose(1, 2, 0)
    elif len(formats) == 3:
        values = values.transpose([formats.find(c) for c in "HWC"])
    elif len(formats) == 2:
        values = values.transpose([formats.find(c) for c in "HW"])[..., None]
    if values.shape[2] == 1:
        values = np.concatenate([values] * 3, 2)
    return values


def encode_png(picture: np.ndarray) -> bytes:
    """A picture [height, width, 1 | 3 | 4] of bytes as PNG."""
    height, width, channels = picture.shape
    kind = {1: 0, 3: 2, 4: 6}[channels]

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    # Each row begins with the filter of its own: none.
    raw = np.concatenate(
        [np.zeros((height, 1), np.uint8), np.ascontiguousarray(picture).reshape(height, -1)], 1
    ).tobytes()
    head = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def image(tag: str, tensor: Any, rescale: float = 1, dataformats: str = "NCHW") -> Summary:
    """Pictures: bytes as they are, other numbers from 0 … 1."""
    values = make_np(tensor)
    scaled = values if values.dtype == np.uint8 else np.clip(values.astype(np.float32) * 255.0, 0, 255).astype(np.uint8)
    picture = to_hwc(scaled, dataformats)
    if rescale != 1:
        rows = (np.arange(int(picture.shape[0] * rescale)) / rescale).astype(int)
        columns = (np.arange(int(picture.shape[1] * rescale)) / rescale).astype(int)
        picture = picture[rows][:, columns]
    height, width, channels = picture.shape
    data = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=encode_png(picture))
    return Summary(value=[Summary.Value(tag=tag, image=data)])


def audio(tag: str, tensor: Any, sample_rate: int = 44100) -> Summary:
    """Sound of one channel in -1 … 1."""
    import wave

    values = make_np(tensor).squeeze()
    if values.ndim != 1:
        raise AssertionError("input tensor should be 1 dimensional.")
    samples = (np.clip(values, -1, 1) * 32767.0).astype("<i2")
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(samples.tobytes())
    data = Summary.Audio(
        sample_rate=sample_rate,
        num_channels=1,
        length_frames=len(samples),
        encoded_audio_string=out.getvalue(),
        content_type="audio/wav",
    )
    return Summary(value=[Summary.Value(tag=tag, audio=data)])


def text(tag: str, text: str) -> Summary:
    """Text, as Markdown."""
    from tensorboard.plugins.text.plugin_data_pb2 import TextPluginData

    metadata = _metadata("text", TextPluginData(version=0).SerializeToString())
    content = TensorProto(dtype=7, string_val=[text.encode()], tensor_shape=_shape(1))
    return Summary(value=[Summary.Value(tag=tag + "/text_summary", metadata=metadata, tensor=content)])


def pr_curve_raw(
    tag: str,
    tp: Any,
    fp: Any,
    tn: Any,
    fn: Any,
    precision: Any,
    recall: Any,
    num_thresholds: int = 127,
    weights: Any = None,
) -> Summary:
    """A curve of precision over recall that was counted elsewhere."""
    from tensorboard.plugins.pr_curve.plugin_data_pb2 import PrCurvePluginData

    data = np.stack([make_np(v).astype(float) for v in (tp, fp, tn, fn, precision, recall)])
    metadata = _metadata(
        "pr_curves", PrCurvePluginData(version=0, num_thresholds=min(num_thresholds, 127)).SerializeToString()
    )
    content = TensorProto(dtype=1, float_val=data.reshape(-1).tolist(), tensor_shape=_shape(*data.shape))
    return Summary(value=[Summary.Value(tag=tag, metadata=metadata, tensor=content)])


def pr_curve(tag: str, labels: Any, predictions: Any, num_thresholds: int = 127, weights: Any = None) -> Summary:
    """Precision over recall at thresholds from 0 to 1."""
    num_thresholds = min(num_thresholds, 127)
    truth, scores = make_np(labels).reshape(-1).astype(bool), make_np(predictions).reshape(-1)
    weight = np.ones(len(scores)) if weights is None else make_np(weights).reshape(-1)
    bucket = np.clip(np.floor(scores * (num_thresholds - 1)).astype(int), 0, num_thresholds - 1)
    hits = np.bincount(bucket, weight * truth, num_thresholds)[::-1].cumsum()[::-1]
    misses = np.bincount(bucket, weight * ~truth, num_thresholds)[::-1].cumsum()[::-1]
    tn, fn = misses[0] - misses, hits[0] - hits
    tiny = 1e-7
    return pr_curve_raw(
        tag,
        hits,
        misses,
        tn,
        fn,
        hits / np.maximum(tiny, hits + misses),
        hits / np.maximum(tiny, hits + fn),
        num_thresholds,
    )


def hparams(
    hparam_dict: dict[str, Any], metric_dict: dict[str, Any], hparam_domain_discrete: dict[str, list[Any]] | None = None
) -> tuple[Summary, Summary, Summary]:
    """An experiment's settings and the metrics that it is judged by: three records (experiment, start, end)."""
    from google.protobuf import struct_pb2
    from tensorboard.plugins.hparams import plugin_data_pb2 as data
    from tensorboard.plugins.hparams.api_pb2 import DataType, Experiment, HParamInfo, MetricInfo, MetricName, Status

    if not isinstance(hparam_dict, dict) or not isinstance(metric_dict, dict):
        raise TypeError("parameter: hparam_dict and metric_dict should be dictionaries")
    discrete = hparam_domain_discrete or {}
    start = data.SessionStartInfo()
    infos = []
    for name, value in hparam_dict.items():
        if value is None:
            continue
        if isinstance(value, Tensor):
            value = value.item()
        kinds = ((bool, "bool_value", DataType.DATA_TYPE_BOOL), ((int, float), "number_value", DataType.DATA_TYPE_FLOAT64),
                 (str, "string_value", DataType.DATA_TYPE_STRING))  # fmt: skip
        for kind, field, declared in kinds:
            if isinstance(value, kind):
                setattr(start.hparams[name], field, value)
                domain = None
                if name in discrete:
                    domain = struct_pb2.ListValue(values=[struct_pb2.Value(**{field: v}) for v in discrete[name]])
                infos.append(HParamInfo(name=name, type=declared, domain_discrete=domain))
                break
        else:
            raise ValueError("value should be one of int, float, str, bool, or torch.Tensor")
    metrics = [MetricInfo(name=MetricName(tag=name)) for name in metric_dict]

    def record(tag: str, **content: Any) -> Summary:
        metadata = _metadata("hparams", data.HParamsPluginData(version=0, **content).SerializeToString())
        return Summary(value=[Summary.Value(tag=tag, metadata=metadata)])

    return (
        record("_hparams_/experiment", experiment=Experiment(hparam_infos=infos, metric_infos=metrics)),
        record("_hparams_/session_start_info", session_start_info=start),
        record(
            "_hparams_/session_end_info", session_end_info=data.SessionEndInfo(status=Status.Value("STATUS_SUCCESS"))
        ),
    )


def custom_scalars(layout: dict[str, dict[str, Any]]) -> Summary:
    """Which charts show which scalars together."""
    from tensorboard.plugins.custom_scalar import layout_pb2

    categories = []
    for title, charts in layout.items():
        built = []
        for name, (kind, tags) in charts.items():
            if kind == "Margin":
                if len(tags) != 3:
                    raise AssertionError("a chart with a margin takes three tags: value, lower, upper")
                series = layout_pb2.MarginChartContent.Series(value=tags[0], lower=tags[1], upper=tags[2])
                built.append(layout_pb2.Chart(title=name, margin=layout_pb2.MarginChartContent(series=[series])))
            else:
                built.append(layout_pb2.Chart(title=name, multiline=layout_pb2.MultilineChartContent(tag=list(tags))))
        categories.append(layout_pb2.Category(title=title, chart=built))
    content = TensorProto(
        dtype=7, string_val=[layout_pb2.Layout(category=categories).SerializeToString()], tensor_shape=_shape()
    )
    metadata = _metadata("custom_scalars")
    return Summary(value=[Summary.Value(tag="custom_scalars__config__", tensor=content, metadata=metadata)])


def mesh(tag: str, vertices: Any, colors: Any, faces: Any, config_dict: dict[str, Any] | None) -> Summary:
    """Points in space [N, points, 3], on wish with colours and faces."""
    from tensorboard.plugins.mesh.plugin_data_pb2 import MeshPluginData

    parts = [(k, make_np(v)) for k, v in ((1, vertices), (2, faces), (3, colors)) if v is not None]
    components = sum(1 << k for k, _ in parts)
    out = []
    names = {1: "VERTEX", 2: "FACE", 3: "COLOR"}
    for kind, values in parts:
        content = MeshPluginData(
            version=0,
            name=tag,
            content_type=kind,
            components=components,
            shape=values.shape,
            json_config=json.dumps(config_dict or {}),
        )
        single = kind != 2
        tensor = TensorProto(
            dtype=1 if single else 3, tensor_shape=_shape(*values.shape),
            tensor_content=values.astype(np.float32 if single else np.int32).tobytes(),
        )  # fmt: skip
        out.append(
            Summary.Value(
                tag=f"{tag}_{names[kind]}", tensor=tensor, metadata=_metadata("mesh", content.SerializeToString())
            )
        )
    return Summary(value=out)


__all__ = [
    "audio", "custom_scalars", "histogram", "histogram_raw", "hparams", "image", "make_np", "mesh", "pr_curve", "pr_curve_raw", "scalar",
    "tensor_proto", "text",
]  # fmt: skip
