"""Logs that TensorBoard shows, written through the tensorboard package."""

try:
    import tensorboard as _tensorboard  # noqa: F401
except ImportError as _missing:
    raise ImportError(
        "flambeau.utils.tensorboard writes through the tensorboard package: pip install tensorboard"
    ) from _missing

from tensorboard.summary.writer.record_writer import RecordWriter

from .writer import FileWriter, SummaryWriter

__all__ = ["FileWriter", "RecordWriter", "SummaryWriter"]
