"""Where the authors of each published dataset publish it: files, sizes, checksums, licences, and how to get them.

Nothing here is downloaded by Earshot.  Sizes and checksums are those that the publishing site states; where it states
none, there is none.
"""

from __future__ import annotations

from typing import NamedTuple


class File(NamedTuple):
    """A published file.

    Attributes:
        name: below the folder of the dataset.
        address: where it lies.
        bytes: its size; None: not stated.
        md5: its checksum; None: not stated.
        unpack: the command that unpacks it, in its folder; "": it needs none.
    """

    name: str
    address: str
    bytes: int | None = None
    md5: str | None = None
    unpack: str = ""


class Origin(NamedTuple):
    """Where a dataset is published.

    Attributes:
        publisher: the page of its authors.
        licence: the licences of captions and of recordings, in words.
        size: the size of all recordings, in words.
        files: those that a command can fetch.
        commands: further commands, run in the folder of the dataset, after the files are fetched.
        remarks: what else to know.
    """

    publisher: str
    licence: str
    size: str
    files: tuple[File, ...] = ()
    commands: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def _zenodo(record: str, name: str, size: int | None, md5: str, unpack: str = "") -> File:
    return File(name, f"https://zenodo.org/records/{record}/files/{name}?download=1", size, md5, unpack)


def _clotho(name: str, md5: str, size: int | None = None) -> File:
    return _zenodo("4783391", name, size, md5, f"7z x {name}" if name.endswith(".7z") else "")


def _tacos(name: str, size: int, md5: str) -> File:
    return _zenodo("15379789", name, size, md5, f"unzip {name}" if name.endswith(".zip") else "")


def _audiocaps(split: str) -> File:
    return File(
        f"dataset/{split}.csv", f"https://raw.githubusercontent.com/cdjkim/audiocaps/master/dataset/{split}.csv"
    )


ORIGINS: dict[str, Origin] = {
    "clotho": Origin(
        publisher="https://zenodo.org/records/4783391 (version 2.1)",
        licence="captions: Tampere University licence, non-commercial; recordings: the Creative Commons licence of "
        "each, in clotho_metadata_*.csv",
        size="about 11 GB unpacked (development 7.1 GB, validation 2.0 GB, evaluation 2.0 GB)",
        files=(
            _clotho("clotho_audio_development.7z", "c8b05bc7acdb13895bb3c6a29608667e"),
            _clotho("clotho_audio_validation.7z", "7dba730be08bada48bd15dc4e668df59"),
            _clotho("clotho_audio_evaluation.7z", "4569624ccadf96223f19cb59fe4f849f"),
            _clotho("clotho_captions_development.csv", "d4090b39ce9f2491908eebf4d5b09bae"),
            _clotho("clotho_captions_validation.csv", "5879e023032b22a2c930aaa0528bead4", 367_649),
            _clotho("clotho_captions_evaluation.csv", "1b16b9e57cf7bdb7f13a13802aeb57e2"),
            _clotho("clotho_metadata_development.csv", "170d20935ecfdf161ce1bb154118cda5", 830_797),
            _clotho("clotho_metadata_validation.csv", "2e010427c56b1ce6008b0f03f41048ce", 224_803),
            _clotho("clotho_metadata_evaluation.csv", "13946f054d4e1bf48079813aac61bf77"),
        ),
        remarks=(
            "The archives of the challenge's sets all unpack into a folder `test`: unpack each in its own folder.",
        ),
    ),
    "audiocaps": Origin(
        publisher="https://github.com/cdjkim/audiocaps",
        licence="captions: for academic purposes only; recordings: parts of YouTube videos",
        size="about 42 GB as FLAC of 32 kHz",
        files=(_audiocaps("train"), _audiocaps("val"), _audiocaps("test")),
        remarks=(
            "The authors give the recordings out by a form, which their page links.",
            "Videos disappear: copies lack 2 to 8 % of the clips. `earshot build` counts what is missing.",
        ),
    ),
    "wavcaps": Origin(
        publisher="https://huggingface.co/datasets/cvssp/WavCaps",
        licence="for academic use only; recordings: the licences of Freesound, the BBC, SoundBible and YouTube",
        size="about 1.5 TB (FreeSound 1.4 TB, BBC 142 GB, AudioSet 64 GB, SoundBible 0.9 GB)",
        commands=(
            "hf download cvssp/WavCaps --repo-type dataset --local-dir .",
            "zip -FF Zip_files/AudioSet_SL/AudioSet_SL.zip --out Zip_files/AudioSet_SL_merged.zip",
            "zip -FF Zip_files/BBC_Sound_Effects/BBC_Sound_Effects.zip --out Zip_files/BBC_Sound_Effects_merged.zip",
            "zip -FF Zip_files/FreeSound/FreeSound.zip --out Zip_files/FreeSound_merged.zip",
        ),
        remarks=(
            "A whole zip archive is read in place; only the split ones have to be merged.",
            "Remove the parts of a split archive once it is merged.",
        ),
    ),
    "tacos": Origin(
        publisher="https://zenodo.org/records/15379789",
        licence="captions: CC BY 4.0; recordings: the Creative Commons licence of each, in metadata.csv",
        size="1.6 GB",
        files=(
            _tacos("annotations_strong.csv", 4_109_451, "882d5a5a28f59441f4c7b4ed17ebab05"),
            _tacos("annotations_weak.csv", 1_318_097, "1445727f4d470273a7395ddcb9e34b93"),
            _tacos("metadata.csv", 8_134_917, "17e8df44f2d217dc7cf4b75767ee5ab3"),
            _tacos("development_split.csv", 112_843, "bee28197d13e859dbc36021c2a928f07"),
            _tacos("test_split.csv", 21_794, "16f5b5eab84753a571e9944739508854"),
            _tacos("audio.zip", 1_629_958_981, "a1b11ed7a88d6b95109decb577c128fd"),
        ),
        remarks=("The archive is read in place; unpacking it is not needed, and faster to read.",),
    ),
    "esc50": Origin(
        publisher="https://github.com/karolpiczak/ESC-50",
        licence="CC BY-NC 3.0; recordings: the licence of each, in LICENSE",
        size="about 0.9 GB unpacked",
        commands=("git clone --depth 1 https://github.com/karolpiczak/ESC-50 .",),
        remarks=("The folder that holds `meta` and `audio` is the dataset.",),
    ),
    "urbansound8k": Origin(
        publisher="https://urbansounddataset.weebly.com/urbansound8k.html",
        licence="CC BY-NC 3.0; recordings: from Freesound, credited in FREESOUNDCREDITS.txt",
        size="about 7 GB unpacked",
        remarks=("The authors give the archive out by a form, which their page links.",),
    ),
    "fsd50k": Origin(
        publisher="https://zenodo.org/records/4060432",
        licence="CC BY 4.0; recordings: the Creative Commons licence of each, in FSD50K.metadata",
        size="about 34 GB unpacked",
        remarks=(
            "The audio is split over zip parts: join them with `zip -s 0 FILE.zip --out whole.zip` before unpacking.",
        ),
    ),
    "tut": Origin(
        publisher="https://zenodo.org/records/400515 (TUT Acoustic Scenes 2017, development)",
        licence="Tampere University licence, non-commercial",
        size="about 10 GB",
        remarks=("One edition may lie in a folder: development or evaluation of one year.",),
    ),
    "audioset": Origin(
        publisher="https://research.google.com/audioset/download.html",
        licence="labels: CC BY 4.0, ontology: CC BY-SA 4.0; recordings: parts of YouTube videos",
        size="labels: 0.1 GB; recordings: not published",
        remarks=("Recordings are not published by the authors: bring copies of your own, named by video and time.",),
    ),
    "vggsound": Origin(
        publisher="https://www.robots.ox.ac.uk/~vgg/data/vggsound/",
        licence="labels: CC BY 4.0; recordings: parts of YouTube videos",
        size="labels: 15 MB; recordings: not published",
        remarks=("Recordings are not published by the authors: bring copies of your own, named by video and time.",),
    ),
    "vggsounder": Origin(
        publisher="https://vggsounder.github.io",
        licence="labels: Apache-2.0; recordings: parts of YouTube videos, as of VGGSound",
        size="labels: 4 MB; recordings: those of VGGSound's test split",
        commands=("git clone --depth 1 https://github.com/Bizilizi/VGGSounder .",),
        remarks=("The table is data/vggsounder.csv. Keep one vggsounder.csv in the folder.",),
    ),
    "epicsounds": Origin(
        publisher="https://epic-kitchens.github.io/epic-sounds",
        licence="CC BY-NC 4.0",
        size="100 hours of sound, in the videos of EPIC-KITCHENS-100",
        commands=("git clone --depth 1 https://github.com/epic-kitchens/epic-sounds-annotations .",),
        remarks=("The sound is in the videos of EPIC-KITCHENS-100; a video or its sound is P01_01 with any suffix.",),
    ),
    "hdepic": Origin(
        publisher="https://hd-epic.github.io",
        licence="CC BY-NC 4.0",
        size="41 hours of sound, in the videos",
        commands=("git clone --depth 1 https://github.com/hd-epic/hd-epic-annotations .",),
        remarks=("The sound is in the videos; a video or its sound is P01-20240202-110250 with any suffix.",),
    ),
    "autoacd": Origin(
        publisher="https://auto-acd.github.io",
        licence="captions: see the page; recordings: parts of YouTube videos, as of AudioSet and VGGSound",
        size="captions: 0.2 GB; recordings: not published",
        remarks=(
            "The tables are train.csv and test.csv of https://huggingface.co/datasets/Loie/Auto-ACD.",
            "AuroLA's test.json in place of test.csv: datasets/annotations/autoacd of github.com/Jazzcharles/AuroLA.",
            "Recordings are those of AudioSet and VGGSound: bring copies of your own, named by video and time.",
        ),
    ),
}
