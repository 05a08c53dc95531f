"""The printed accuracy table: text cells, caption, Markdown and LaTeX."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cbbt.catalogue import UNTUNED, label
from cbbt.results.statistics import difference_sentence
from cbbt.results.tables import SCORE, mean_over_datasets, scores

LATEX = str.maketrans(
    {letter: rf"\{letter}" for letter in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"±": r"$\pm$", "–": "--", "−": "$-$", "<": "$<$", ">": "$>$", "|": "$|$"}
)
MARKDOWN = str.maketrans({letter: rf"\{letter}" for letter in "\\|$*`<"})


def accuracy_table(runs: pd.DataFrame, shots: int, score: str = SCORE) -> pd.DataFrame:
    """Text cells "mean ± sd" in percent over seeds: methods × data sets, and their mean.

    The sd is the sample's (n − 1); one seed has none. Column "seeds" holds the
    number of seeds; a cell with fewer than its row's maximum ends in "[n]". Zero-shot
    draws nothing and has neither. No run, or no seed with every data set: "–".
    """
    wide = scores(runs, shots, score)
    datasets = list(dict.fromkeys(wide.index.get_level_values("dataset")))
    columns = {name: wide.xs(name, level="dataset") for name in datasets}
    if len(datasets) > 1:
        columns["mean"] = mean_over_datasets(wide)
    counts = pd.DataFrame({name: values.count() for name, values in columns.items()})
    seeds = counts.max(axis=1)
    cells = {
        name: [accuracy_cell(values[method].dropna(), seeds[method], method) for method in wide]
        for name, values in columns.items()
    }
    return pd.DataFrame(cells, index=pd.Index([label(method) for method in wide], name="method")).assign(
        seeds=["–" if method in UNTUNED else str(seeds[method]) for method in wide]
    )


def accuracy_cell(values: pd.Series, seeds: int, method: str) -> str:
    """One cell: `values`, in percent, are the method's over seeds, and `seeds` the maximum in its row."""
    if values.empty:
        return "–"
    if method in UNTUNED:
        return f"{values.mean():.1f}"
    spread = f" ± {values.std():.1f}" if len(values) > 1 else ""
    return f"{values.mean():.1f}{spread}" + (f" [{len(values)}]" if len(values) < seeds else "")


def shots_name(shots: int) -> str:
    """The number of shots in words: "1 shot", "4 shots"."""
    return f"{shots} shot{'s' if shots != 1 else ''}"


def accuracy_caption(runs: pd.DataFrame, shots: int, score: str = SCORE) -> str:
    """The accuracy table's caption, with a comparison of its best method and the runner-up.

    These two have the highest means over all data sets; they are compared by a two-sided
    paired t-test over all data sets and seeds that both have. p is not corrected for the
    choice of the two.
    """
    wide = scores(runs, shots, score)
    backbone = runs.backbone.iloc[0]
    given = "without training images" if set(wide) <= set(UNTUNED) else f"with {shots_name(shots)} per class"
    text = f"Test accuracy (%) {given}, {backbone}: mean ± standard deviation over seeds; best in bold."
    ranked = mean_over_datasets(wide).mean().dropna().sort_values(ascending=False, kind="stable").index
    if "[" in "".join(accuracy_table(runs, shots, score).to_numpy().ravel()):
        text += " In brackets: the number of seeds where some are missing."
    if len(ranked) < 2:
        return text
    return f"{text} Best against runner-up in the mean: {difference_sentence(runs, ranked[0], ranked[1], shots, score)}"


def to_markdown(table: pd.DataFrame, caption: str = "", best: list[str] | None = None) -> str:
    """A table of text cells as Markdown, with the best of the columns `best` in bold: all but "seeds" if None.

    A table of blocks (with a two-level index) names each block in its first row.
    """
    marked = _bold_best(table, "**{}**", MARKDOWN, best)
    if marked.index.nlevels > 1:
        blocks = marked.index.get_level_values(0)
        names = pd.MultiIndex.from_arrays([blocks.where(~blocks.duplicated(), ""), marked.index.get_level_values(1)])
        marked = marked.set_axis(names.set_names(marked.index.names)).reset_index().set_index(marked.index.names[0])
    body = marked.to_markdown(stralign="left", disable_numparse=True)
    return f"{body}\n\n{caption}\n" if caption else f"{body}\n"


def to_latex(table: pd.DataFrame, caption: str = "", name: str = "tab:accuracy", best: list[str] | None = None) -> str:
    """The same as a LaTeX table for the package booktabs, with a line below each block."""
    bold = _bold_best(table, r"\textbf{{{}}}", LATEX, best).rename_axis(index=[None] * table.index.nlevels)
    layout = {"hrules": True, "position": "t", "position_float": "centering"}
    layout["column_format"] = "l" * table.index.nlevels + "c" * len(bold.columns)
    if table.index.nlevels > 1:
        layout |= {"clines": "skip-last;data", "multirow_align": "naive"}
    text = bold.style.to_latex(caption=caption.translate(LATEX) or None, label=name, **layout)
    below = rf"\cline{{1-{table.index.nlevels + len(table.columns)}}}" + "\n"  # each block, the last one too
    return text.replace(below + r"\bottomrule", r"\bottomrule").replace(below, "\\midrule\n")


def write_accuracy_table(runs: pd.DataFrame, shots: int, folder: str | Path, suffix: str = "") -> str:
    """Write the accuracy table as `folder/accuracy_table<suffix>.md` and `.tex`, UTF-8, and return the former's text."""
    table, caption = accuracy_table(runs, shots), accuracy_caption(runs, shots)
    texts = {"md": to_markdown(table, caption), "tex": to_latex(table, caption, f"tab:accuracy{suffix}")}
    return write_texts(texts, folder, f"accuracy_table{suffix}")


def write_texts(texts: dict[str, str], folder: str | Path, name: str) -> str:
    """Write each text as `folder/name.<its key>`, UTF-8, and return the one in Markdown."""
    folder = Path(folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    for kind, text in texts.items():
        (folder / f"{name}.{kind}").write_text(text, encoding="utf-8")
    return texts["md"]


def _bold_best(table: pd.DataFrame, bold: str, escapes: dict, best: list[str] | None) -> pd.DataFrame:
    """Texts and names with `escapes` applied, and the highest printed mean of each column of `best`, with ties, in `bold`."""
    marked = table.map(lambda text: text.translate(escapes))
    for column in table.columns.drop("seeds") if best is None else best:
        means = pd.to_numeric(table[column].str.split(" ").str[0], errors="coerce")
        first = means == means.max()
        marked.loc[first, column] = marked.loc[first, column].map(bold.format)
    return marked.rename(index=lambda name: name.translate(escapes), columns=lambda name: name.translate(escapes))
