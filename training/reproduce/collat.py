"""The plans of CoLLAT (Silva et al. 2023, NeurIPS): tables 2, 3 and 4, figures 2b, 4a and 4b."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from training.reproduce.plans import Cell, Plan, PlannedRun

ESC, URBAN, SCENES, FSD, AUDIOSET = "esc50", "urbansound8k", "tut", "fsd50k/eval", "audioset/eval"
CLASSES = {  # column, split of the zero-shot test, measure; the splits on which a probe is trained and tested
    "ESC-50": (ESC, "accuracy", [f"esc50/fold{fold}" for fold in range(1, 5)], "esc50/fold5"),
    "US8K": (URBAN, "accuracy", [f"urbansound8k/fold{fold}" for fold in range(1, 10)], "urbansound8k/fold10"),
    "TUT": (SCENES, "accuracy", [f"tut/fold{fold}" for fold in range(1, 4)], "tut/fold4"),
    "FSD50K": (FSD, "mAP", ["fsd50k/train"], FSD),
    "AudioSet": (AUDIOSET, "mAP", ["audioset/balanced_train"], AUDIOSET),
}
CLIP = "{encoder: clip, source: openai/clip-vit-base-patch32}"
AST = "{encoder: ast, source: MIT/ast-finetuned-audioset-10-10-0.4593}"
FROM_SCRATCH = "{encoder: ast, source: random, width: 768, depth: 12, heads: 12, segment_s: 10.24}"
COMMON = (
    "The paper gives no batch, rate, length, optimizer or temperature, and leaves more open (docs/METHODS.md).",
    "AudioSet's videos disappear, so today's copies have fewer clips than the 2,041,792 of the paper.",
    "Clips that share sound with an evaluation split are withheld; the paper does not say that any are.",
    "The paper gives one run of each model; ours is the mean of the seeds.",
)
OTHERS = "The published baselines (YamNet, Wav2CLIP, AudioCLIP, CLAP) are not trained here."
NOISE = "The noise of the noisy tests is added to the wave, whose full scale is 1; the paper only gives 0.1."
NO_FIGURES = "The paper shows these results as a plot without numbers, so no published figure stands beside ours."


def _labels(run: str, split: str, measure: str, published: float | None = None, noise: float = 0.0) -> Cell:
    return Cell(run, "labels", split, measure, published, noise)


def _two_tests(run: str) -> dict[str, Cell]:
    """The two zero-shot tests of the ablations: one label a clip, and several."""
    return {"ESC-50 (Acc)": _labels(run, ESC, "accuracy"), "FSD50K (mAP)": _labels(run, FSD, "mAP")}


def _items(splits: Iterable[str]) -> str:
    return "data.train=[" + ", ".join(f"{{split: {split}, captions: [label]}}" for split in splits) + "]"


def _table_2() -> Plan:
    zero_shot = {"ESC-50": 84.0, "US8K": 77.0, "TUT": 29.0, "FSD50K": 19.0, "AudioSet": 9.0}
    probe = {"ESC-50": 97.0, "US8K": 89.0, "TUT": 74.0, "FSD50K": 64.0, "AudioSet": 39.0}
    supervised = {"ESC-50": 53.0, "US8K": 63.0, "TUT": 60.0, "FSD50K": 32.0, "AudioSet": 24.0}
    runs = {"collat": PlannedRun("collat")}
    cells: dict[str, dict[str, Cell]] = {"CoLLAT": {}, "Supervise": {}}
    for name, (split, measure, trained, tested) in CLASSES.items():
        data = _items(trained)
        runs[f"probe-{name}"] = PlannedRun("linear_probe", ("task.probe=decoder", f"audio={AST}", data), "collat")
        alone = ("task.probe=decoder", f"audio={FROM_SCRATCH}", "init_from=null", "optimizer.freeze=[]", data)
        runs[f"supervised-{name}"] = PlannedRun("linear_probe", (*alone, "optimizer.lr=1e-4"))
        cells["CoLLAT"] |= {f"{name} zero-shot": _labels("collat", split, measure, zero_shot[name])}
        cells["CoLLAT"] |= {f"{name} probe": _labels(f"probe-{name}", tested, measure, probe[name])}
        cells["Supervise"] |= {f"{name} probe": _labels(f"supervised-{name}", tested, measure, supervised[name])}
    return Plan(
        "CoLLAT (Silva et al. 2023), table 2: accuracy, and mAP of FSD50K and AudioSet",
        runs,
        {},
        (
            *COMMON,
            OTHERS,
            "Probes of the sets with folds are trained on all folds but the last and tested on that one; the paper "
            "does not say how it splits them. AudioSet's probe is trained on balanced_train.",
            "Probes: AdamW, 20 epochs of batches of 64; the paper gives neither.",
        ),
        cells,
    )


def _table_3() -> Plan:
    published = {  # ESC-50 clean and noisy, FSD50K clean and noisy
        "CoLLAT": (84.0, 59.0, 19.0, 17.0),
        "(-) L_cross-token": (81.0, 50.0, 13.0, 11.0),
        "(-) L_uni-token": (85.0, 53.0, 18.0, 13.0),
        "(-) L_cross-global": (82.0, 54.0, 17.0, 16.0),
    }
    runs = {
        "CoLLAT": PlannedRun("collat"),
        "(-) L_cross-token": PlannedRun("collat", ("task.token_weight=0",)),
        "(-) L_uni-token": PlannedRun("collat", ("task.noise_weight=0",)),
        "(-) L_cross-global": PlannedRun("collat", ("task.global_weight=0",)),
    }
    rows = {}
    for name, (esc, esc_noisy, fsd, fsd_noisy) in published.items():
        whole = name == "CoLLAT"
        found = {
            "ESC-50 clean": _labels(name, ESC, "accuracy", esc),
            "ESC-50 noisy": _labels(name, ESC, "accuracy", esc_noisy, 0.1),
            "FSD50K clean": _labels(name, FSD, "mAP", fsd),
            "FSD50K noisy": _labels(name, FSD, "mAP", fsd_noisy, 0.1),
        }
        for column, figure, value in (
            ("VGGSound sound to image (MRR)", "audio_to_image/MRR", 9.3),
            ("VGGSound image to sound (MRR)", "image_to_audio/MRR", 11.2),
        ):
            found[column] = Cell(name, "images", "vggsound/test", figure, value if whole else None)
        for column, figure, value in (
            ("AudioCaps sound to text (mAP@10)", "audio_to_text/mAP@10", 62.0),
            ("AudioCaps text to sound (mAP@10)", "text_to_audio/mAP@10", 59.0),
        ):
            found[column] = Cell(name, "retrieval", "audiocaps/test", figure, value if whole else None)
        rows[name] = found
    return Plan(
        "CoLLAT (Silva et al. 2023), table 3: loss terms, and retrieval across modalities",
        runs,
        {},
        (
            *COMMON,
            NOISE,
            "The text of the paper that could be read joins tables 3a and 3b into one. The last row of 3b is taken for "
            "CoLLAT's, because the gains that section 5.2 names follow from it; its other rows are baselines.",
            "The paper does not define its mAP@10; ours divides by the number of all relevant items, and a clip of "
            "AudioCaps' test set has five captions.",
            "The model of the retrieval rows is that of the table's first row; the paper does not say whether it was "
            "trained on AudioCaps or VGGSound too.",
        ),
        rows,
    )


def _table_4() -> Plan:
    published = {
        "bleu_1": 55.1,
        "bleu_2": 37.2,
        "bleu_3": 24.3,
        "bleu_4": 15.1,
        "cider_d": 43.0,
        "meteor": 16.3,
        "rouge_l": 39.6,
        "spice": 11.3,
    }
    audiocaps = "data.train=[{split: audiocaps/train}]"
    captioner = PlannedRun("captioning", (f"audio={AST}", audiocaps, "data.crop_s=10.0", "validation=null"), "collat")
    cells = {name: Cell("captioner", "captions", "audiocaps/test", name, value) for name, value in published.items()}
    return Plan(
        "CoLLAT (Silva et al. 2023), table 4: captions of AudioCaps",
        {"collat": PlannedRun("collat"), "captioner": captioner},
        {},
        (
            *COMMON,
            OTHERS,
            "The table prints CIDEr and METEOR of people as 28.8 and 91.3, which AudioCaps' own paper gives the other "
            "way round; the two columns are taken to be exchanged, also in CoLLAT's row.",
            "The one-layer transformer reads the patches of CoLLAT's audio encoder; the paper says CoLLAT's output.",
            "Its width, length, rate and search are Earshot's; texts are split at spaces, not by COCO's tokenizer.",
        ),
        {"CoLLAT": cells},
    )


def _figure_4a(what: str, key: str, values: Iterable[int]) -> Plan:
    runs = {f"{what} {value}": PlannedRun("collat", (f"{key}={value}",)) for value in values}
    return Plan(
        f"CoLLAT (Silva et al. 2023), figure 4a: {key.rpartition('.')[2]}",
        runs,
        {},
        (*COMMON, NO_FIGURES),
        {name: _two_tests(name) for name in runs},
    )


def _figure_4b() -> Plan:
    sounds = {
        "AST, pre-trained": AST,
        "AST, from scratch": FROM_SCRATCH,
        "PaSST": "{encoder: passt, variant: passt_s_p16_s16_128_ap468}",
        "CLAP (HTS-AT)": "{encoder: clap, source: laion/clap-htsat-unfused}",
        "Whisper small": "{encoder: whisper, source: openai/whisper-small}",
    }
    runs = {name: PlannedRun("collat", (f"audio={audio}",)) for name, audio in sounds.items()}
    more = (
        "Its other networks cannot be read from the text; ours are the audio encoders that Earshot has.",
        "A pre-trained encoder moves at a tenth of the rate; so does the one from scratch here.",
    )
    rows = {name: _two_tests(name) for name in runs}
    return Plan("CoLLAT (Silva et al. 2023), figure 4b: audio encoders", runs, {}, (*COMMON, NO_FIGURES, *more), rows)


def _figure_2b() -> Plan:
    locked = ("task={name: retrieval}", "head={name: dual, dim: 512, project_text: false}", f"text={CLIP}")
    freeze, rates = "optimizer.freeze=['text.*']", "optimizer.rates={}"
    runs = {"CoLLAT": PlannedRun("collat")}
    ratios = {"0.09": (192, 3), "0.34": (384, 6), "1.4": (768, 12), "4.8": (1024, 16)}
    for ratio, (width, heads) in ratios.items():
        depth = 24 if width == 1024 else 12
        sizes = f"source: random, width: {width}, depth: {depth}, heads: {heads}, segment_s: 10.24"
        runs[f"dual encoder, ratio {ratio}"] = PlannedRun(
            "collat", (*locked, freeze, rates, f"audio={{encoder: ast, {sizes}}}")
        )
    rows = {name: {"FSD50K (mAP)": _labels(name, FSD, "mAP")} for name in runs}
    more = (
        "The paper scales CLAP's audio encoder; ours is an AST from scratch in the sizes of DeiT and ViT, with the "
        "text encoder locked. The ratio is of the parameters of both encoders.",
    )
    return Plan("CoLLAT (Silva et al. 2023), figure 2b: sizes", runs, {}, (*COMMON, NO_FIGURES, *more), rows)


PLANS: dict[str, Callable[[], Plan]] = {
    "collat-table-2": _table_2,
    "collat-table-3": _table_3,
    "collat-table-4": _table_4,
    "collat-figure-2b": _figure_2b,
    "collat-figure-4a-blocks": lambda: _figure_4a("blocks", "task.interaction.blocks", range(1, 13)),
    "collat-figure-4a-layers": lambda: _figure_4a("layer", "task.layer", range(0, 13, 2)),
    "collat-figure-4b": _figure_4b,
}
