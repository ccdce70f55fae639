"""`SummaryWriter`: numbers, pictures, histograms and settings of a run, as TensorBoard reads them."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from . import summary
from .summary import make_np


class FileWriter:
    """One file of events."""

    def __init__(self, log_dir: Any, max_queue: int = 10, flush_secs: int = 120, filename_suffix: str = "") -> None:
        self.event_writer = EventFileWriter(str(log_dir), max_queue, flush_secs, filename_suffix)

    def get_logdir(self) -> str:
        """The folder."""
        return self.event_writer.get_logdir()  # type: ignore[no-any-return]

    def add_event(self, event: Event, step: Any = None, walltime: float | None = None) -> None:
        """Writes an event."""
        event.wall_time = time.time() if walltime is None else walltime
        if step is not None:
            event.step = int(step)
        self.event_writer.add_event(event)

    def add_summary(self, record: Any, global_step: Any = None, walltime: float | None = None) -> None:
        """Writes a record."""
        self.add_event(Event(summary=record), global_step, walltime)

    def flush(self) -> None:
        """Waits until everything is in the file."""
        self.event_writer.flush()

    def close(self) -> None:
        """Ends the file."""
        self.event_writer.close()

    def reopen(self) -> None:
        """Goes on in a new file."""
        self.event_writer.reopen()


class SummaryWriter:
    """Writes what TensorBoard shows into `log_dir`, by default `runs/<date>_<host><comment>`."""

    def __init__(
        self,
        log_dir: Any = None,
        comment: str = "",
        purge_step: int | None = None,
        max_queue: int = 10,
        flush_secs: int = 120,
        filename_suffix: str = "",
    ) -> None:
        if not log_dir:
            import socket
            from datetime import datetime

            log_dir = os.path.join(
                "runs", datetime.now().strftime("%b%d_%H-%M-%S") + "_" + socket.gethostname() + comment
            )
        self.log_dir, self.purge_step, self.max_queue = log_dir, purge_step, max_queue
        self.flush_secs, self.filename_suffix = flush_secs, filename_suffix
        self.file_writer: FileWriter | None = None
        self.all_writers: dict[str, FileWriter] | None = None
        self._get_file_writer()
        # Fine near zero, as gradients are.
        edges = [1e-12 * 1.1**i for i in range(774)]
        self.default_bins = [-e for e in reversed(edges)] + [0.0] + edges

    def _get_file_writer(self) -> FileWriter:
        if self.all_writers is None or self.file_writer is None:
            self.file_writer = FileWriter(self.log_dir, self.max_queue, self.flush_secs, self.filename_suffix)
            self.all_writers = {self.file_writer.get_logdir(): self.file_writer}
            if self.purge_step is not None:
                step = self.purge_step
                self.file_writer.add_event(Event(step=step, file_version="brain.Event:2"))
                self.file_writer.add_event(Event(step=step, session_log=SessionLog(status=SessionLog.START)))
                self.purge_step = None
        return self.file_writer

    def get_logdir(self) -> Any:
        """The folder."""
        return self.log_dir

    def _add(self, record: Any, step: Any, walltime: float | None) -> None:
        self._get_file_writer().add_summary(record, step, walltime)

    def add_scalar(
        self, tag: str, scalar_value: Any, global_step: Any = None, walltime: float | None = None, new_style: bool = False,
        double_precision: bool = False,
    ) -> None:  # fmt: skip
        """A number."""
        self._add(summary.scalar(tag, scalar_value, None, new_style, double_precision), global_step, walltime)

    def add_scalars(
        self, main_tag: str, tag_scalar_dict: dict[str, Any], global_step: Any = None, walltime: float | None = None
    ) -> None:
        """Numbers that one chart shows, each in a folder of its own."""
        self._get_file_writer()
        writers = self.all_writers or {}
        for tag, value in tag_scalar_dict.items():
            folder = os.path.join(str(self.log_dir), main_tag.replace("/", "_") + "_" + tag)
            if folder not in writers:
                writers[folder] = FileWriter(folder, self.max_queue, self.flush_secs, self.filename_suffix)
            writers[folder].add_summary(summary.scalar(main_tag, value), global_step, walltime)

    def add_tensor(self, tag: str, tensor: Any, global_step: Any = None, walltime: float | None = None) -> None:
        """A tensor as it is."""
        self._add(summary.tensor_proto(tag, tensor), global_step, walltime)

    def add_histogram(
        self, tag: str, values: Any, global_step: Any = None, bins: Any = "tensorflow", walltime: float | None = None,
        max_bins: int | None = None,
    ) -> None:  # fmt: skip
        """How often values occur."""
        edges = self.default_bins if isinstance(bins, str) and bins == "tensorflow" else bins
        self._add(summary.histogram(tag, values, edges, max_bins), global_step, walltime)

    def add_histogram_raw(
        self, tag: str, min: float, max: float, num: float, sum: float, sum_squares: float, bucket_limits: Any, bucket_counts: Any,
        global_step: Any = None, walltime: float | None = None,
    ) -> None:  # fmt: skip
        """A histogram that was counted elsewhere."""
        if len(bucket_limits) != len(bucket_counts):
            raise ValueError("len(bucket_limits) != len(bucket_counts), see the document.")
        record = summary.histogram_raw(tag, min, max, num, sum, sum_squares, bucket_limits, bucket_counts)
        self._add(record, global_step, walltime)

    def add_image(
        self,
        tag: str,
        img_tensor: Any,
        global_step: Any = None,
        walltime: float | None = None,
        dataformats: str = "CHW",
    ) -> None:
        """A picture."""
        self._add(summary.image(tag, img_tensor, dataformats=dataformats), global_step, walltime)

    def add_images(
        self,
        tag: str,
        img_tensor: Any,
        global_step: Any = None,
        walltime: float | None = None,
        dataformats: str = "NCHW",
    ) -> None:
        """Pictures side by side."""
        self._add(summary.image(tag, img_tensor, dataformats=dataformats), global_step, walltime)

    def add_image_with_boxes(
        self, tag: str, img_tensor: Any, box_tensor: Any, global_step: Any = None, walltime: float | None = None, rescale: float = 1,
        dataformats: str = "CHW", labels: Any = None,
    ) -> None:  # fmt: skip
        """A picture with frames (left, top, right, bottom) drawn in it."""
        values = make_np(img_tensor)
        if values.dtype != np.uint8:
            values = np.clip(values.astype(np.float32) * 255.0, 0, 255).astype(np.uint8)
        picture = summary.to_hwc(values, dataformats).copy()
        for box in make_np(box_tensor).reshape(-1, 4).astype(int):
            left, top, right, bottom = (max(0, int(v)) for v in box)
            for rows, columns in ((slice(top, bottom + 1), slice(left, left + 1)), (slice(top, bottom + 1), slice(right, right + 1)),
                                  (slice(top, top + 1), slice(left, right + 1)), (slice(bottom, bottom + 1), slice(left, right + 1))):  # fmt: skip
                picture[rows, columns, :3] = (255, 0, 0)
        self._add(summary.image(tag, picture, rescale=rescale, dataformats="HWC"), global_step, walltime)

    def add_figure(
        self, tag: str, figure: Any, global_step: Any = None, close: bool = True, walltime: float | None = None
    ) -> None:
        """One figure of matplotlib, or several."""
        figures = figure if isinstance(figure, list) else [figure]
        pictures = []
        for f in figures:
            f.canvas.draw()
            pictures.append(np.asarray(f.canvas.buffer_rgba())[..., :3])
            if close:
                import matplotlib.pyplot as plt

                plt.close(f)
        if isinstance(figure, list):
            self.add_images(tag, np.stack(pictures), global_step, walltime, dataformats="NHWC")
        else:
            self.add_image(tag, pictures[0], global_step, walltime, dataformats="HWC")

    def add_video(
        self, tag: str, vid_tensor: Any, global_step: Any = None, fps: Any = 4, walltime: float | None = None
    ) -> None:
        """Says what to use instead."""
        raise NotImplementedError("flambeau encodes no videos: add_images shows the pictures side by side")

    def add_audio(
        self,
        tag: str,
        snd_tensor: Any,
        global_step: Any = None,
        sample_rate: int = 44100,
        walltime: float | None = None,
    ) -> None:
        """Sound of one channel in -1 … 1."""
        self._add(summary.audio(tag, snd_tensor, sample_rate), global_step, walltime)

    def add_text(self, tag: str, text_string: str, global_step: Any = None, walltime: float | None = None) -> None:
        """Text, as Markdown."""
        self._add(summary.text(tag, text_string), global_step, walltime)

    def add_graph(
        self, model: Any, input_to_model: Any = None, verbose: bool = False, use_strict_trace: bool = True
    ) -> None:
        """The model's layers with their sizes, as text under `graph`; programs are not traced."""
        from ... import utils

        inputs = (
            () if input_to_model is None else input_to_model if isinstance(input_to_model, tuple) else (input_to_model,)
        )
        table = utils.summary(model, *inputs)
        if verbose:
            print(table)
        self.add_text("graph", "\n".join("    " + line for line in str(table).splitlines()))

    def add_onnx_graph(self, prototxt: Any) -> None:
        """Says what to use instead."""
        raise NotImplementedError("flambeau reads no ONNX files: add_graph(model, inputs) shows a model")

    def add_embedding(
        self, mat: Any, metadata: Any = None, label_img: Any = None, global_step: Any = None, tag: str = "default",
        metadata_header: Any = None,
    ) -> None:  # fmt: skip
        """Vectors [N, D] for the projector, with a label and a picture each."""
        values = make_np(mat)
        if values.ndim != 2:
            raise AssertionError("mat should be 2D, where mat.size(0) is the number of data points")
        name = f"{0 if global_step is None else int(global_step):05d}/{tag}"
        folder = os.path.join(str(self.log_dir), name)
        os.makedirs(folder, exist_ok=True)
        entry = [f'tensor_name: "{tag}:{name[:5]}"', f'tensor_path: "{name}/tensors.tsv"']
        np.savetxt(os.path.join(folder, "tensors.tsv"), values, delimiter="\t", fmt="%.8g")
        if metadata is not None:
            if len(metadata) != len(values):
                raise AssertionError("#labels should equal with #data points")
            rows = ["\t".join(map(str, r)) if metadata_header else str(r) for r in metadata]
            with open(os.path.join(folder, "metadata.tsv"), "w", encoding="utf-8") as file:
                file.write("\n".join((["\t".join(metadata_header)] if metadata_header else []) + rows) + "\n")
            entry.append(f'metadata_path: "{name}/metadata.tsv"')
        if label_img is not None:
            pictures = make_np(label_img)
            if len(pictures) != len(values):
                raise AssertionError("#images should equal with #data points")
            side = int(np.ceil(np.sqrt(len(pictures))))
            n, c, h, w = pictures.shape
            sheet = np.zeros((side * h, side * w, c), np.uint8)
            scaled = pictures if pictures.dtype == np.uint8 else np.clip(pictures * 255.0, 0, 255).astype(np.uint8)
            for i, picture in enumerate(scaled):
                y, x = i // side * h, i % side * w
                sheet[y : y + h, x : x + w] = picture.transpose(1, 2, 0)
            with open(os.path.join(folder, "sprite.png"), "wb") as png:
                png.write(summary.encode_png(sheet))
            entry.append(f'sprite {{ image_path: "{name}/sprite.png" single_image_dim: {w} single_image_dim: {h} }}')
        with open(os.path.join(str(self.log_dir), "projector_config.pbtxt"), "a", encoding="utf-8") as file:
            file.write("embeddings {\n  " + "\n  ".join(entry) + "\n}\n")

    def add_pr_curve(
        self, tag: str, labels: Any, predictions: Any, global_step: Any = None, num_thresholds: int = 127, weights: Any = None,
        walltime: float | None = None,
    ) -> None:  # fmt: skip
        """Precision over recall."""
        self._add(summary.pr_curve(tag, labels, predictions, num_thresholds, weights), global_step, walltime)

    def add_pr_curve_raw(
        self, tag: str, true_positive_counts: Any, false_positive_counts: Any, true_negative_counts: Any, false_negative_counts: Any,
        precision: Any, recall: Any, global_step: Any = None, num_thresholds: int = 127, weights: Any = None,
        walltime: float | None = None,
    ) -> None:  # fmt: skip
        """Precision over recall that was counted elsewhere."""
        counts = (
            true_positive_counts,
            false_positive_counts,
            true_negative_counts,
            false_negative_counts,
            precision,
            recall,
        )
        self._add(summary.pr_curve_raw(tag, *counts, num_thresholds=num_thresholds), global_step, walltime)

    def add_custom_scalars_multilinechart(
        self, tags: list[str], category: str = "default", title: str = "untitled"
    ) -> None:
        """One chart for several scalars."""
        self.add_custom_scalars({category: {title: ["Multiline", tags]}})

    def add_custom_scalars_marginchart(
        self, tags: list[str], category: str = "default", title: str = "untitled"
    ) -> None:
        """One chart for a scalar with its bounds."""
        self.add_custom_scalars({category: {title: ["Margin", tags]}})

    def add_custom_scalars(self, layout: dict[str, dict[str, Any]]) -> None:
        """Which charts show which scalars together."""
        self._add(summary.custom_scalars(layout), None, None)

    def add_mesh(
        self, tag: str, vertices: Any, colors: Any = None, faces: Any = None, config_dict: dict[str, Any] | None = None,
        global_step: Any = None, walltime: float | None = None,
    ) -> None:  # fmt: skip
        """Points in space, on wish with colours and faces."""
        self._add(summary.mesh(tag, vertices, colors, faces, config_dict), global_step, walltime)

    def add_hparams(
        self, hparam_dict: dict[str, Any], metric_dict: dict[str, Any], hparam_domain_discrete: Any = None, run_name: str | None = None,
        global_step: Any = None,
    ) -> None:  # fmt: skip
        """A run's settings and what it came to, in a folder of their own."""
        records = summary.hparams(hparam_dict, metric_dict, hparam_domain_discrete)
        folder = os.path.join(str(self.log_dir), run_name or str(time.time()))
        with SummaryWriter(log_dir=folder) as own:
            for record in records:
                own._add(record, global_step, None)
            for name, value in metric_dict.items():
                if value is not None:
                    own.add_scalar(name, value, global_step)

    def flush(self) -> None:
        """Waits until everything is in the files."""
        for writer in (self.all_writers or {}).values():
            writer.flush()

    def close(self) -> None:
        """Ends the files."""
        for writer in (self.all_writers or {}).values():
            writer.flush()
            writer.close()
        self.file_writer = self.all_writers = None

    def __enter__(self) -> SummaryWriter:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()


__all__ = ["FileWriter", "SummaryWriter"]
