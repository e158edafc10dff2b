"""The benchmark's results in words: one Markdown table after another, and the page that holds them."""

from pathlib import Path

BEGIN, END = "<!-- make bench writes from here -->", "<!-- to here -->"
NOT_YET = "*No tables yet: nothing was measured on this version.*\n"


def page_with_tables(page: str, results: Path) -> str:
    """The text of docs/benchmarks.md with the tables of every machine in `results` between its two marks."""
    before, _, rest = page.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"the page has no place for tables: {BEGIN!r} … {END!r}")
    tables = [path.read_text() for path in sorted(results.glob("*.md"))]
    return "\n".join([before + BEGIN, "", *(tables or [NOT_YET]), END + after])


def markdown(results: dict) -> str:
    """What `bench.py` measured, as far as it did."""
    about = results["about"]
    images = results["images"]
    what = f"training images: {images['n_train']:,} {images['what']}"
    lines = [f"{about['machine']}, {about['device']}, torch {about['torch']}; {what}"]
    lines += ["", *speeds(results)] if "machine" in results else []
    lines += ["", *loops(results)] if "naive" in results else []
    lines += ["", *quality(results["quality"])] if "quality" in results else []
    lines += ["", *start(results)] if "start" in results else []
    lines += ["", *scales(results)] if {"scale", "scale_by_ten"} <= set(results) else []
    lines += ["", *gpu(results)] if results.get("gpu") else []
    return "\n".join(lines) + "\n"


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]


def speeds(results: dict) -> list[str]:
    """Each network, with bfloat16 and without."""
    peak = results["machine"]
    head = [
        "network (parameters, GFLOP a training image)",
        "precision",
        "training, images/s",
        "bare step",
        "data path",
        "of peak",
    ]
    head += ["encoding", "decoding", "peak memory"]
    rows = []
    for name in ("default", "calibrated", "spatial", "attention"):
        result = results.get(name)
        for key in ("as_it_comes", "bf16_off") if result else ():
            turn = result[key]
            precision = "bfloat16" if turn["bf16"] else "float32"
            of_peak = turn["epoch"] * result["flops_per_image"] / 1e12 / peak[precision]
            row = [f"{name} ({result['parameters'] / 1e6:.1f}M, {result['flops_per_image'] / 1e9:.2f})", precision]
            row += [f"{turn['epoch']:.0f}", f"{turn['bare_step']:.0f}", f"{turn['data_path']:.1%}", f"{of_peak:.0%}"]
            more = [f"{result['encode']:.0f}", f"{result['sample']:.0f}", f"{result['peak_memory_gb']:.1f} GB"]
            rows.append(row + (more if key == "as_it_comes" else ["", "", ""]))
    peaks = ", ".join(f"{value:.2f} TFLOP/s in {name}" for name, value in peak.items())
    return [
        *table(head, rows),
        "",
        f"Peak, the faster of a matrix product and a wide convolution: {peaks}. Encoding and decoding in float32, images/s.",
    ]


def loops(results: dict) -> list[str]:
    """The naive loop against ours."""
    naive = results["naive"]
    epoch = results["images"]["n_train"] / naive["usual_network"] / 60
    few = naive["usual_network_steps"]
    size = f"{naive['usual_network_parameters'] / 1e6:.0f}M parameters"
    rows = [
        ["`fit`, default network", f"{naive['fit']:.0f}", ""],
        ["naive loop, the same network", f"{naive['same_network']:.1f}", f"{naive['fit_is_faster_by']:.1f}"],
        [
            f"naive loop, its usual network ({size}; {few} steps, from which an epoch would take {epoch:.0f} minutes)",
            f"{naive['usual_network']:.2f}",
            f"{naive['fit'] / naive['usual_network']:.0f}",
        ],
    ]
    return table(["loop", "images/s", "`fit` is faster by"], rows)


def quality(result: dict) -> list[str]:
    """The run of ten minutes."""
    beaten = result["seconds_to_beat_it"]
    rows = [
        ["validation loss, z sampled, falls below probabilistic PCA's", f"after {beaten:.0f} s" if beaten else "never"],
        [
            f"after {result['epochs']} epochs, {result['curve'][-1][0]:.0f} s: validation",
            f"{result['validation']:.5f} (PCA's: {result['linear']:.5f})",
        ],
        ["the same model, on test", f"{result['test']:.5f} (PCA's: {result['linear_on_test']:.5f})"],
    ]
    return table(["default model, `recon + beta * kl`", "measured"], rows)


def start(results: dict) -> list[str]:
    result, images = results["start"], results["images"]
    rows = [
        ["`import vae_helpers`, Python's own start included", f"{result['import_seconds']:.2f} s"],
        ["`from vae_helpers import fit`, likewise", f"{result['import_fit_seconds']:.1f} s"],
        ["`vae-helpers train` until its first step, cache warm", f"{result['first_step_seconds']:.1f} s"],
        [
            f"loading {images['n_train']:,} images, first time and second",
            f"{images['first_load_seconds']:.1f} s, {images['second_load_seconds']:.2f} s",
        ],
    ]
    return table(["start", "measured"], rows)


def scales(results: dict) -> list[str]:
    few, many = results["scale"], results["scale_by_ten"]
    rows = []
    for what, name in (
        ("`split`", "split"),
        ("`train`, an epoch of a narrow network", "train"),
        ("`evaluate`", "evaluate"),
        ("`duplicates`, which compares each with each", "duplicates"),
    ):
        cells = [f"{part[name]['seconds']:.0f} s, {part[name]['anonymous_gb']:.2f} GB" for part in (few, many)]
        rows.append([what, *cells, f"{many[name]['seconds'] / few[name]['seconds']:.1f}"])
    head = ["ten times the images: time, anonymous memory", f"{few['n_images']:,}", f"{many['n_images']:,}", "ratio of times"]
    return table(head, rows)


def gpu(results: dict) -> list[str]:
    result = results["gpu"]
    speed, flops = result["attention_images_per_second"], result["attention_flops_per_image"]
    apart = max(abs(a / b - 1) for a, b in zip(result["curve_here"], result["curve_on_cpu"], strict=True))
    rows = [
        [f"default network, 100 epochs of 16,463 images, batch {size}", f"{result[f'100_epochs_batch_{size}_seconds']:.0f} s"]
        for size in (32, 256)
    ]
    rows += [
        ["attention VAE at full width: images/s", f"{speed:.0f}"],
        ["– of the peak in bfloat16", f"{speed * flops / 1e12 / results['machine']['bfloat16']:.0%}"],
        ["– 100 epochs of 16,463 images would take", f"{100 * 16_463 / speed / 60:.0f} minutes"],
        ["training losses of the CPU and the GPU, float32, apart by at most", f"{apart:.2%}"],
    ]
    return table(["on the GPU, compiled", "measured"], rows)
