"""`Report`: the numbers of one model; `compare`: those of several."""

import base64
import html
import json
import os
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from keras_gen import files

_ERROR = "_standard_error"


class Report(dict):
    """What `evaluate` found: a dictionary of plain Python values.

    Beside the model's numbers (`report["frechet_distance"]`, and the standard
    error of `report["log_prob"]` as `report["log_prob_standard_error"]`) it
    has:

    - `"model"`: its class, name and number of parameters;
    - `"references"`: the same numbers for two other sets of images, `"real"`
      and `"gaussian"`;
    - `"class_counts"`, if there was a classifier: how many samples it took
      for which class;
    - `"conditions"`: all that the numbers depend on beside the model: the
      images, their number and fingerprint, the number and seed of the
      samples, the metrics, the feature extractor and library versions.

    `print(report)` shows a table. `report.pictures` holds uint8 pictures
    `(height, width, channels)` by name; they are not in the JSON file.

    Args:
        *args: As for `dict`.
        pictures: Dictionary, name to picture, or `None`.

    Example:

    >>> report = evaluate(model, test)
    >>> report.save("report.json"), report.save("report.html")
    >>> Report.load("report.json") == report
    True
    """

    def __init__(self, *args, pictures=None):
        super().__init__(*args)
        self.pictures = pictures or {}

    def __str__(self):
        return compare([self], print_fn=None)

    def numbers(self):
        """The model's numbers alone: `{name: float}`."""
        return _numbers(self)

    def save(self, path):
        """Writes a JSON file, or a page for people that needs nothing else.

        The file replaces an older one when it is whole.

        Args:
            path: Ends in `.json` or `.html`.

        Raises:
            ValueError: If it ends in something else.
        """
        path = os.path.expanduser(os.fspath(path))
        if path.endswith(".json"):
            text = json.dumps(self, indent=2)
        elif path.endswith(".html"):
            text = _page(self)
        else:
            raise ValueError(
                f"`path` must end in '.json' or '.html', got {path[-200:]!r}."
            )
        with files.replacing(path) as part:
            with open(part, "w", encoding="utf-8") as file:
                file.write(text + "\n")

    @classmethod
    def load(cls, path):
        """Reads what `save` wrote as JSON; its `pictures` are empty.

        Args:
            path: Of a JSON file.

        Returns:
            `Report`.

        Raises:
            ValueError: If the file holds no report.
        """
        with open(os.path.expanduser(path), encoding="utf-8") as file:
            try:
                values = json.load(file)
            except ValueError as error:
                raise ValueError(
                    f"`path` must be a JSON file, got {str(path)[-200:]!r}: "
                    f"{str(error)[:100]}. Write it with `report.save`."
                ) from error
        if not isinstance(values, dict) or not (
            {"model", "references", "conditions"} <= set(values)
        ):
            raise ValueError(
                f"`path` must be the file of a report, got "
                f"{str(path)[-200:]!r}, which is another JSON file. Write it "
                "with `report.save`."
            )
        return cls(values)


def compare(reports, *, ignore=(), print_fn=print):
    """One table of the numbers of several models.

    The table has a row a number and a column a model, and then the columns
    `real` and `gaussian` of the first report.

    Args:
        reports: List of `Report`, or dictionary from the name of a column to
            one. In a list, they are named as the models are.
        ignore: Names of conditions that may differ, such as `"seed"`,
            `"data.origin"` or `"versions"` (which is all of them).
        print_fn: Function that prints the table, or `None`.

    Returns:
        The table, a string in Markdown.

    Raises:
        ValueError: If there is no report, or their conditions differ, so that
            the numbers must not be compared: the message names how.

    Example:

    >>> compare({"VAE": Report.load("vae.json"), "GAN": evaluate(gan, test)})
    """
    if not isinstance(reports, Mapping):
        reports = _by_model_name(reports)
    if not reports or not all(isinstance(r, dict) for r in reports.values()):
        raise ValueError(
            "`reports` must be reports of `keras_gen.evaluate`, one at least, "
            f"got {[type(r).__name__ for r in reports.values()]}."
        )
    ignore = [ignore] if isinstance(ignore, str) else list(ignore)
    (first, conditions), *others = (
        (name, _flat(report["conditions"])) for name, report in reports.items()
    )
    for name, other in others:
        _require_same(first, conditions, name, other, ignore)
    references = next(iter(reports.values()))["references"]
    table = _table([*reports.items(), *references.items()])
    if print_fn is not None:
        print_fn(table)
    return table


def _by_model_name(reports):
    named = {}
    for report in reports:
        name = base = str(report["model"]["name"])
        count = 1
        while name in named:
            count += 1
            name = f"{base} ({count})"
        named[name] = report
    return named


def _require_same(first, conditions, name, other, ignore):
    differing = [
        key
        for key in {**conditions, **other}
        if conditions.get(key) != other.get(key)
        and not any(key == i or key.startswith(f"{i}.") for i in ignore)
    ]
    if differing:
        key = differing[0]
        names = ", ".join(differing)
        raise ValueError(
            "`reports` must be of the same conditions, but "
            f"{first[:40]!r} and {name[:40]!r} differ in {names[:160]}: "
            f"{key} is {str(conditions.get(key))[:70]} and "
            f"{str(other.get(key))[:70]}. Evaluate both alike, or name in "
            "`ignore` what may differ."
        )


def _flat(conditions, prefix=""):
    """`{"data": {"num_images": 1}}` as `{"data.num_images": 1}`."""
    flat = {}
    for key, value in conditions.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _numbers(row):
    return {
        name: value
        for name, value in row.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _cells(columns):
    """Rows of strings, the name of a number and then its values.

    Args:
        columns: List of pairs: name, and dictionary of numbers.
    """
    columns = [column for _, column in columns]
    numbers = [_numbers(column) for column in columns]
    names = [
        name
        for name in dict.fromkeys(name for row in numbers for name in row)
        if not name.endswith(_ERROR)
    ]
    if any(column.get("log_prob_kind") for column in columns):
        names.insert(0, "log_prob_kind")
    for name in names:
        yield [name, *(_cell(column, name) for column in columns)]


def _cell(column, name):
    value = column.get(name)
    if value is None:
        return "-"
    if name == "log_prob_kind" and column.get("log_prob_is_cross_entropy"):
        return "cross-entropy"
    if isinstance(value, str):
        return value
    text = f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
    error = column.get(f"{name}{_ERROR}")
    return text if error is None else f"{text} ± {error:.2g}"


def _table(columns):
    names = [name for name, _ in columns]
    rows = [["", *names], ["---", *["---:"] * len(names)]]
    rows += _cells(columns)
    # A bar would end a cell.
    rows = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


# The page: nothing in it comes from elsewhere, and no value is taken as HTML.

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto;
  max-width: 64em; padding: 0 1em; color: #222; background: #fff }
table { border-collapse: collapse }
td, th { border-bottom: 1px solid #ddd; padding: .2em .8em; text-align: right }
td:first-child, th:first-child { text-align: left }
td { overflow-wrap: anywhere }
img { image-rendering: pixelated; max-width: 100% }
.bar { background: #47a; height: 1em; display: inline-block }
"""


def _page(report):
    model, conditions = report["model"], report["conditions"]
    columns = [(model["name"], report), *report["references"].items()]
    title = f"{model['class']} {model['name']}"
    extractor = conditions["feature_extractor"]["name"]
    parts = [
        f"<h1>{_escape(title)}</h1>",
        f"<p>{_escape(model['num_parameters'])} parameters; "
        f"{_escape(conditions['num_samples'])} samples against "
        f"{_escape(conditions['data']['num_images'])} real images; features: "
        f"{_escape(extractor)}. <em>real</em>: real images against real "
        "images, which no model beats. <em>gaussian</em>: samples of a "
        "Gaussian fitted to the pixels.</p>",
        _html_table([["", *(name for name, _ in columns)], *_cells(columns)]),
    ]
    if not report.pictures:
        parts.append("<p>The pictures are not kept in JSON files.</p>")
    captions = {
        "samples": "Samples",
        "real": "Real images",
        "points": "Real points (left) and samples (right)",
        "neighbours": "Samples (above) and the reference images that are "
        "nearest to them (below)",
    }
    for name, caption in captions.items():
        if name in report.pictures:
            parts.append(f"<h2>{caption}</h2>")
            parts.append(_image(report.pictures[name]))
            if name == "neighbours":
                parts.append(_about_copies(report))
    if "class_counts" in report:
        parts.append("<h2>Classes that the classifier sees</h2>")
        parts.append(_histogram(columns))
    parts.append("<h2>Conditions</h2>")
    parts.append(_html_table([["", ""], *_flat(conditions).items()]))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src '
        "'none'; img-src data:; style-src 'unsafe-inline'\">\n"
        f"<title>{_escape(title)}</title><style>{_STYLE}</style></head>\n"
        "<body>" + "\n".join(parts) + "</body></html>"
    )


def _about_copies(report):
    real = report["references"]["real"]
    searched = report["conditions"]["reference"]
    of_what = (
        "reference image"
        if searched
        else "image of the other half of the data (no training images given)"
    )
    return (
        f"<p>Median distance to the nearest {of_what}: "
        f"{_escape(_cell(report, 'nearest_distance'))} from samples, "
        f"{_escape(_cell(real, 'nearest_distance'))} from real images. "
        f"{_escape(format(report['copies'], '.1%'))} of the samples are as "
        "close as only 1% of the real images are.</p>"
    )


def _histogram(columns):
    """For each class a row of bars, one a column."""
    names, shares = ["class"], []
    for name, column in columns:
        counts = np.array(column["class_counts"])
        names.append(name)
        shares.append(counts / counts.sum())
    largest = np.max(shares)
    rows = []
    for i in range(len(shares[0])):
        bars = [
            f'<td style="text-align: left"><span class="bar" style="width: '
            f'{8 * share[i] / largest:.2f}em"></span> {share[i]:.1%}</td>'
            for share in shares
        ]
        rows.append(f"<tr><td>{i}</td>{''.join(bars)}</tr>")
    head = "".join(f"<th>{_escape(name)}</th>" for name in names)
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


def _html_table(rows):
    head, *body = ([_escape(cell) for cell in row] for row in rows)
    lines = ["".join(f"<th>{cell}</th>" for cell in head)]
    lines += ["".join(f"<td>{cell}</td>" for cell in row) for row in body]
    return f"<table><tr>{'</tr><tr>'.join(lines)}</tr></table>"


def _image(picture):
    """A picture inside of the page, small ones enlarged."""
    if picture.shape[-1] == 2:  # which PNG takes for grey and opacity
        picture = np.pad(picture, ((0, 0), (0, 0), (0, 1)))
    data = base64.b64encode(tf.io.encode_png(picture).numpy()).decode()
    width = picture.shape[1] * max(1, 600 // picture.shape[1])
    return f'<img width="{width}" alt="" src="data:image/png;base64,{data}">'


def _escape(value):
    return html.escape(str(value))
