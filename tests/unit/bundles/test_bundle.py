from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from naevus.bundles.bundle import Bundle, Limits, builtin, find_bundles, write_bundle
from naevus.bundles.card import card_of
from naevus.bundles.spec import BundleSpec, ClassifierSpec
from naevus.errors import BundleError
from naevus.evaluation.conformal import Conformal
from naevus.io.files import sha256
from naevus.taxonomy import ISIC2018
from tests.helpers.onnx_graphs import WEIGHTS, classification_bundle, segmentation_bundle

if TYPE_CHECKING:
    from pathlib import Path


SETS = {
    "classes": list(ISIC2018.codes),
    "coverage": 0.9,
    "thresholds": [0.25, 0.1, 0.2, 0.2, 0.2, 0.0, 0.2],
    "groups": [50, 400, 30, 20, 60, 5, 15],
}
SCORE = {
    "name": "balanced accuracy",
    "value": 0.8,
    "low": 0.75,
    "high": 0.85,
    "measured_on": "fold 0",
}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return classification_bundle(tmp_path / "bundle", seeds=(0, 1), provenance={"recipe": "x"})


def change(bundle: Bundle, **entries: Any) -> None:
    path = bundle.folder / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def change_classifier(bundle: Bundle, **entries: Any) -> None:
    change(bundle, classifier=bundle.classifier.model_dump(mode="json") | entries)


def change_member(bundle: Bundle, **entries: Any) -> None:
    member = bundle.classifier.members[0].model_dump(mode="json") | entries
    change_classifier(bundle, members=[member])


def test_a_bundle_is_read_as_written(bundle: Bundle) -> None:
    read = Bundle.read(bundle.folder)
    assert read == bundle
    assert read.sha256 == sha256(bundle.folder / "bundle.json")
    assert set(read.spec.files) == {"member-0.onnx", "member-1.onnx", "MODEL_CARD.md"}
    assert read.classifier.classes == ISIC2018.codes
    assert read.classifier.members[0].class_weights == WEIGHTS
    with pytest.raises(BundleError, match="has no segmenter"):
        _ = read.segmenter


def test_the_card_lists_members_priors_and_provenance(bundle: Bundle) -> None:
    card = (bundle.folder / "MODEL_CARD.md").read_text()
    assert "member-1.onnx" in card
    assert "| NV | 0.6700 | 0.5000 |" in card
    assert "recipe: x" in card
    assert "For research use only" in card


def written_with(bundle: Bundle, files: dict[str, Path], **entries: Any) -> Bundle:
    spec = BundleSpec.model_validate(bundle.spec.model_dump() | entries)
    graphs = {member.file: bundle.member_path(member) for member in spec.members}
    return write_bundle(bundle.folder.parent / "full", spec, graphs | files)


def test_the_card_states_purpose_and_scores(bundle: Bundle) -> None:
    card = (bundle.folder / "MODEL_CARD.md").read_text()
    for title in ("Intended use", "Out of scope", "Members", "Probabilities", "Scores", "Limits"):
        assert f"\n## {title}\n\n" in card
    assert "This bundle contains no scores" in card
    assert "Training data" not in card
    data = {"task": "classification", "name": "HAM10000", "images": 10014}
    full = written_with(
        bundle,
        {},
        scores=[SCORE, {"name": "Jaccard", "value": 0.7, "measured_on": "fold 1"}],
        training_data=[data | {"licence": "CC BY-NC 4.0"}, data | {"task": "segmentation"}],
        limits=["Only square images."],
    )
    card = (full.folder / "MODEL_CARD.md").read_text()
    assert "| balanced accuracy | 0.800 | 0.750 to 0.850 | (1) |" in card
    assert "| Jaccard | 0.700 | – | (2) |" in card
    assert "1. fold 0\n2. fold 1\n" in card
    assert "- classification: HAM10000, 10,014 images; licence: CC BY-NC 4.0\n" in card
    assert "- segmentation: HAM10000, 10,014 images; licence: unknown" in card
    assert "- Only square images.\n" in card
    assert "\n\n\n" not in card


def test_a_card_says_what_its_groups_are() -> None:
    spec = Bundle.read(builtin()).spec
    assert "lesions" in card_of(spec)
    card = card_of(spec.model_copy(update={"unit": "patient", "scores": (), "training_data": ()}))
    for words in ("| diagnosis | patients |", "by patient", "one image per patient"):
        assert words in card
    assert "| lesions |" not in card
    for section in ("By diagnosis", "Subgroups"):
        text = card.partition(f"## {section}")[2].partition("\n## ")[0]
        assert re.search(r"lesions\b|(by|per|one) lesion\b", text) is None


def test_prediction_sets_and_ood_statistics_are_stored(bundle: Bundle, tmp_path: Path) -> None:
    classifier = bundle.classifier.model_dump()
    classifier |= {"conformal": SETS, "ood": "statistics.npz"}
    with pytest.raises(BundleError, match=r"without a file: statistics\.npz"):
        written_with(bundle, {}, classifier=classifier)
    statistics = tmp_path / "any.npz"
    statistics.write_bytes(b"numbers")
    full = written_with(bundle, {"statistics.npz": statistics}, classifier=classifier)
    assert full.classifier.conformal is not None
    assert Conformal.from_dict(full.classifier.conformal.model_dump()).to_dict() == SETS
    assert full.classifier.ood == "statistics.npz"
    assert "| MEL | 0.2500 | 50 |" in (full.folder / "MODEL_CARD.md").read_text()
    (full.folder / "statistics.npz").write_bytes(b"other numbers")
    with pytest.raises(BundleError, match=r"statistics\.npz: changed since"):
        Bundle.read(full.folder)


def test_same_content_gives_same_hash(tmp_path: Path) -> None:
    one = classification_bundle(tmp_path / "one")
    two = classification_bundle(tmp_path / "two")
    assert one.sha256 == two.sha256


@pytest.mark.parametrize("name", ["member-1.onnx", "MODEL_CARD.md"])
def test_a_changed_file_is_refused(bundle: Bundle, name: str) -> None:
    with (bundle.folder / name).open("ab") as stream:
        stream.write(b"\0")
    with pytest.raises(BundleError, match=f"{name}: changed since"):
        Bundle.read(bundle.folder)


def test_a_missing_file_is_refused(bundle: Bundle) -> None:
    (bundle.folder / "member-0.onnx").unlink()
    with pytest.raises(BundleError, match=r"member-0\.onnx: cannot be read"):
        Bundle.read(bundle.folder)


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/hostname", "a/b.onnx", "..", ".hidden", "", "a\n", "a\\b"]
)
def test_names_that_leave_the_folder_are_refused(bundle: Bundle, name: str) -> None:
    files = dict(bundle.spec.files)
    change(bundle, files={**files, name: "0" * 64})
    with pytest.raises(BundleError, match=r"files\."):
        Bundle.read(bundle.folder)


def test_a_member_outside_the_folder_is_refused(bundle: Bundle) -> None:
    change_member(bundle, file="../bundle-graphs/0.onnx")
    with pytest.raises(BundleError, match=r"members\.0\.file"):
        Bundle.read(bundle.folder)


def test_a_member_without_hash_is_refused(bundle: Bundle) -> None:
    files = dict(bundle.spec.files)
    del files["member-0.onnx"]
    change(bundle, files=files)
    with pytest.raises(BundleError, match=r"member-0\.onnx has no hash"):
        Bundle.read(bundle.folder)


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ({"schema_version": 2}, r"newer schema than 1, .*; update naevus"),
        ({"schema_version": 10**400, "new": 1}, "newer schema than 1"),
        ({"schema_version": 0}, "schema_version"),
        ({"stray": 1}, "stray"),
        ({"classifier": None}, "needs a segmenter, a classifier or attributes"),
        ({"scores": [SCORE | {"low": 0.9}]}, "lower end of an interval is above"),
        ({"scores": [SCORE | {"high": None}]}, "both ends"),
        ({"scores": [SCORE | {"measured_on": ""}]}, "scores.0.measured_on"),
        ({"training_data": [{"task": "sleep", "name": "x", "images": 1}]}, "task"),
    ],
)
def test_schema_errors_are_one_line(bundle: Bundle, entries: dict[str, Any], problem: str) -> None:
    change(bundle, **entries)
    assert_refused(bundle, problem)


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ({"class_weights": [1.0]}, "must have the same length"),
        ({"class_weights": [*WEIGHTS[:-1], 0.0]}, "weights"),
        ({"class_priors": [1.0] * 7}, "sum to 1"),
        ({"storage": "fp8"}, "storage"),
    ],
)
def test_errors_of_a_member_are_one_line(
    bundle: Bundle, entries: dict[str, Any], problem: str
) -> None:
    change_member(bundle, **entries)
    assert_refused(bundle, problem)


def test_a_folder_may_not_list_more_files_than_an_archive(bundle: Bundle) -> None:
    more = {f"{number}.onnx": "0" * 64 for number in range(Limits().files)}
    change(bundle, files={**bundle.spec.files, **more})
    assert_refused(bundle, "lists 503 files; at most 500 are allowed")


def test_a_manifest_is_not_read_beyond_the_limit(bundle: Bundle) -> None:
    with (bundle.folder / "bundle.json").open("r+b") as stream:
        stream.truncate(Limits().manifest + 1)
    assert_refused(bundle, "is larger than 4 MB; do not use this bundle")


def test_classes_may_be_a_subset_of_a_taxonomy(bundle: Bundle) -> None:
    entries = bundle.spec.model_dump(mode="json")["classifier"]
    member = entries["members"][0] | {"class_weights": [1.0, 1.0], "class_priors": [0.5, 0.5]}
    some = entries | {"members": [member], "classes": ["MEL", "NV"], "offsets": []}
    found = ClassifierSpec.model_validate(some | {"conformal": None, "taxonomy": "isic2018"})
    assert found.names == {**found.names, "MEL": "melanoma", "NV": "melanocytic naevus"}
    with pytest.raises(ValueError, match="differ from those of taxonomy"):
        ClassifierSpec.model_validate(
            some | {"conformal": None, "taxonomy": "isic2018", "classes": ["NV", "MEL"]}
        )


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ({"members": []}, "members"),
        ({"classes": [*ISIC2018.codes[1:], "MEL"]}, "differ from those of taxonomy"),
        ({"classes": ["MEL"] * 7}, "different classes"),
        ({"taxonomy": "icd"}, "unknown taxonomy"),
        ({"temperature": 0}, "temperature"),
        ({"crop_mode": "circle"}, "crop_mode"),
        ({"conformal": SETS | {"coverage": 1}}, "coverage"),
        ({"conformal": SETS | {"thresholds": [0.1]}}, "one threshold and one count per class"),
        (
            {"conformal": SETS | {"classes": [*ISIC2018.codes[1:], "MEL"]}},
            "per class, in order",
        ),
        ({"conformal": SETS | {"groups": [-1] * 7}}, "groups"),
        ({"ood": "../statistics.npz"}, "ood"),
        ({"ood": "statistics.npz"}, "statistics.npz has no hash"),
    ],
)
def test_errors_of_a_classifier_are_one_line(
    bundle: Bundle, entries: dict[str, Any], problem: str
) -> None:
    change_classifier(bundle, **entries)
    assert_refused(bundle, problem)


def assert_refused(bundle: Bundle, problem: str) -> None:
    with pytest.raises(BundleError, match=problem) as raised:
        Bundle.read(bundle.folder)
    assert "\n" not in str(raised.value)
    assert "bundle.json" in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"])
def test_a_manifest_that_is_not_json_is_refused(bundle: Bundle, content: bytes) -> None:
    (bundle.folder / "bundle.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"bundle\.json"):
        Bundle.read(bundle.folder)


def test_writing_replaces_an_older_bundle(bundle: Bundle) -> None:
    newer = segmentation_bundle(bundle.folder.parent / "newer")
    files = {"member-0.onnx": newer.folder / "member-0.onnx"}
    written = write_bundle(bundle.folder, newer.spec, files)
    assert written.spec.tasks == ("segmentation",)
    names = sorted(path.name for path in bundle.folder.iterdir())
    assert names == ["MODEL_CARD.md", "bundle.json", "member-0.onnx"]
    left = [entry.name for entry in bundle.folder.parent.iterdir() if entry.suffix == ".tmp"]
    assert left == []


def test_a_failed_write_keeps_the_older_bundle(bundle: Bundle) -> None:
    spec = bundle.spec
    files = dict.fromkeys((member.file for member in spec.members), bundle.folder / "absent")
    with pytest.raises(Exception, match="cannot be written"):
        write_bundle(bundle.folder, spec, files)
    assert Bundle.read(bundle.folder) == bundle


def test_a_folder_that_is_not_a_bundle_is_never_replaced(tmp_path: Path, bundle: Bundle) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    files = {member.file: bundle.member_path(member) for member in bundle.spec.members}
    with pytest.raises(BundleError, match="is not a bundle"):
        write_bundle(tmp_path / "thesis", bundle.spec, files)
    assert (tmp_path / "thesis" / "chapter.txt").exists()


@pytest.mark.parametrize(
    ("manifest", "other"),
    [
        (b'{"name": "webpack things"}', "thesis.docx"),
        (b'{"name": "webpack things"}', "model.onnx"),
        (b'{"name": "webpack things"}', None),
        (b"", "thesis.docx"),
        (b"", None),
        (b'{"schema_version": 1, "segmenter": {', "thesis.docx"),
        (b'{"schema_version": 1, "segmenter": 3}', "weights.safetensors"),
    ],
)
def test_files_of_others_are_never_deleted(
    tmp_path: Path, bundle: Bundle, manifest: bytes, other: str | None
) -> None:
    place = tmp_path / "project"
    place.mkdir()
    (place / "bundle.json").write_bytes(manifest)
    if other is not None:
        (place / other).write_text("years of work")
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    files = {member.file: bundle.member_path(member) for member in bundle.spec.members}
    with pytest.raises(BundleError, match="which is not part of the bundle") as caught:
        write_bundle(place, bundle.spec, files)
    assert "\n" not in str(caught.value)
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before


def test_writing_replaces_a_damaged_bundle(bundle: Bundle) -> None:
    newer = segmentation_bundle(bundle.folder.parent / "newer")
    manifest = bundle.folder / "bundle.json"
    manifest.write_bytes(manifest.read_bytes()[:-50])
    written = write_bundle(
        bundle.folder, newer.spec, {"member-0.onnx": newer.folder / "member-0.onnx"}
    )
    assert written.spec.tasks == ("segmentation",)


def test_files_must_cover_the_members_and_be_plain_names(tmp_path: Path, bundle: Bundle) -> None:
    graph = bundle.folder / "member-0.onnx"
    member = {"file": "a.onnx", "architecture": "tiny", "input_size": 8}
    spec = BundleSpec.model_validate({"segmenter": {"members": [member]}})
    with pytest.raises(BundleError, match=r"without a file: a\.onnx"):
        write_bundle(tmp_path / "new", spec, {})
    for name in ("../b", "bundle.json", "MODEL_CARD.md"):
        with pytest.raises(BundleError):
            write_bundle(tmp_path / "new", spec, {"a.onnx": graph, name: graph})
    assert not (tmp_path / "new").exists()


def test_a_run_gives_the_bundles_of_its_folds_in_order(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for fold in (10, 2):
        (run / f"fold-{fold}").mkdir(parents=True)
        classification_bundle(run / f"fold-{fold}" / "bundle", seeds=(fold,))
    alone = segmentation_bundle(tmp_path / "alone")
    found = find_bundles([run, tmp_path / "alone"])
    assert [each.folder.parent.name for each in found[:2]] == ["fold-2", "fold-10"]
    assert found[2] == alone


def test_a_folder_without_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="neither a bundle"):
        find_bundles([tmp_path])
    with pytest.raises(BundleError, match="absent does not exist; name a bundle"):
        find_bundles([tmp_path / "absent"])
    with pytest.raises(BundleError, match="absent does not exist; name a bundle"):
        Bundle.read(tmp_path / "absent")
