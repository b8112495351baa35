"""Public data sets: the real headings of their tables, with made-up rows.

Headings are copied from the data sets' own tables: the ISIC challenges of 2016 to 2020
(challenge.isic-archive.com/data), MILK10k (doi.org/10.34970/648456), Derm7pt (derm.cs.sfu.ca),
PAD-UFES-20 (data.mendeley.com/datasets/zr7vgbcyr2), PH2 (fc.up.pt/addi), and the ISIC Archive's
``metadata.csv`` (isic-cli 12).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from naevus.datasets.layouts import LAYOUTS, load
from tests.helpers.layouts import files, kinds, place_layout, row, text

TYPES = "image_type"


def labels(root: Path, **more: Any) -> dict[str, str | None]:
    table = load(root, **more).table
    codes = table["diagnosis"].astype(object).where(table["diagnosis"].notna(), None)
    return dict(zip(table["image_id"], codes, strict=True))


def test_isic2016_is_read_without_a_heading(tmp_path: Path) -> None:
    files(tmp_path / "ISBI2016_ISIC_Part1_Training_Data", "ISIC_0000000.jpg", "ISIC_0000003.jpg")
    files(tmp_path / "ISBI2016_ISIC_Part3_Training_Data", "ISIC_0000000.jpg", "ISIC_0000003.jpg")
    masks = tmp_path / "ISBI2016_ISIC_Part1_Training_GroundTruth"
    files(masks, "ISIC_0000000_Segmentation.png", "ISIC_0000003_Segmentation.png")
    files(tmp_path / "ISBI2016_ISIC_Part3_Test_Data", "ISIC_0000016.jpg")
    text(
        tmp_path / "ISBI2016_ISIC_Part3_Training_GroundTruth.csv",
        "ISIC_0000000,benign",
        "ISIC_0000003,malignant",
    )
    text(tmp_path / "ISBI2016_ISIC_Part3_Test_GroundTruth.csv", "ISIC_0000016,1.0")
    dataset = load(tmp_path)
    assert dataset.layout == "isic2016"
    assert dataset.taxonomy.name == "binary"
    assert labels(tmp_path) == {
        "ISIC_0000000": "BENIGN",
        "ISIC_0000003": "MALIGNANT",
        "ISIC_0000016": "MALIGNANT",
    }
    assert dataset.with_masks().ids == ["ISIC_0000000", "ISIC_0000003"]
    assert dataset.split("test").ids == ["ISIC_0000016"]
    assert "two files of one id" not in kinds(dataset)


def test_isic2016_with_masks_beside_images(tmp_path: Path) -> None:
    folder = tmp_path / "ISBI2016_ISIC_Part3B_Training_Data"
    files(folder, "ISIC_0000000.jpg", "ISIC_0000000_Segmentation.png")
    text(tmp_path / "ISBI2016_ISIC_Part3B_Training_GroundTruth.csv", "ISIC_0000000,malignant")
    dataset = load(tmp_path)
    assert row(dataset, "ISIC_0000000")["mask_path"].endswith("_Segmentation.png")
    assert labels(tmp_path) == {"ISIC_0000000": "MALIGNANT"}
    assert dataset.problems == ()


def test_isic2017_without_either_is_a_nevus(tmp_path: Path) -> None:
    data = tmp_path / "ISIC-2017_Training_Data"
    names = [f"ISIC_000000{k}" for k in range(4)]
    files(data, *(f"{name}.jpg" for name in names), *(f"{name}_superpixels.png" for name in names))
    files(tmp_path / "ISIC-2017_Test_v2_Data", "ISIC_0012086.jpg", "ISIC_0012086_superpixels.png")
    masks = tmp_path / "ISIC-2017_Training_Part1_GroundTruth"
    files(masks, *(f"{name}_segmentation.png" for name in names))
    text(
        data / "ISIC-2017_Training_Data_metadata.csv",
        "image_id,age_approximate,sex",
        "ISIC_0000000,45,female",
        "ISIC_0000001,unknown,unknown",
    )
    text(
        tmp_path / "ISIC-2017_Training_Part3_GroundTruth.csv",
        "image_id,melanoma,seborrheic_keratosis",
        "ISIC_0000000,1.0,0.0",
        "ISIC_0000001,0.0,1.0",
        "ISIC_0000002,0.0,0.0",
        "ISIC_0000003,0.0,0.0",
    )
    dataset = load(tmp_path)
    assert dataset.layout == "isic2017"
    assert labels(tmp_path) == {
        **dict(zip(names, ("MEL", "BKL", "NV", "NV"), strict=True)),
        "ISIC_0012086": None,
    }
    assert dataset.with_masks().ids == names
    assert dataset.split("test").ids == ["ISIC_0012086"]
    assert (row(dataset, names[0])["age"], row(dataset, names[0])["sex"]) == (45.0, "female")
    assert dataset.table["age"].notna().sum() == 1


def test_isic2019_keeps_its_eight_classes(tmp_path: Path) -> None:
    folder = tmp_path / "ISIC_2019_Training_Input" / "ISIC_2019_Training_Input"
    files(folder, "ISIC_0000001_downsampled.jpg", "ISIC_0000002.jpg", "ISIC_0000003.jpg")
    text(
        tmp_path / "ISIC_2019_Training_GroundTruth.csv",
        "image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK",
        "ISIC_0000001_downsampled,0.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0",
        "ISIC_0000002,0.0,0.0,0.0,1.0,0.0,0.0,0.0,0.0,0.0",
        "ISIC_0000003,0.0,0.0,0.0,0.0,0.0,0.0,0.0,1.0,0.0",
    )
    text(
        tmp_path / "ISIC_2019_Training_Metadata.csv",
        "image,age_approx,anatom_site_general,lesion_id,sex",
        "ISIC_0000001_downsampled,55.0,anterior torso,BCN_0000001,female",
        "ISIC_0000003,,,BCN_0000001,male",
    )
    dataset = load(tmp_path)
    assert (dataset.layout, dataset.taxonomy.name) == ("isic2019", "isic2019")
    assert list(labels(tmp_path).values()) == ["NV", "AK", "SCC"]
    groups = dataset.table["group_id"].tolist()
    assert groups[0] == groups[2] != groups[1]
    assert dataset.problems == ()


@pytest.mark.parametrize("table", ["train", "ISIC_2020_Training_GroundTruth_v2"])
def test_isic2020_reads_benign_and_malignant(tmp_path: Path, table: str) -> None:
    names = [f"ISIC_000000{k}" for k in range(5)]
    files(tmp_path / "jpeg" / "train", *(f"{name}.jpg" for name in names))
    files(tmp_path / "jpeg" / "test", "ISIC_0000010.jpg")
    text(
        tmp_path / f"{table}.csv",
        "image_name,patient_id,sex,age_approx,anatom_site_general_challenge,diagnosis,"
        "benign_malignant,target",
        "ISIC_0000000,IP_1,male,45.0,head/neck,unknown,benign,0",
        "ISIC_0000001,IP_1,male,45.0,head/neck,melanoma,malignant,1",
        "ISIC_0000002,IP_2,female,,,lentigo NOS,benign,0",
        "ISIC_0000003,IP_3,female,30.0,torso,unknown,benign,0",
        "ISIC_0000004,IP_4,female,30.0,torso,nevus,benign,0",
    )
    text(
        tmp_path / "test.csv",
        "image_name,patient_id,sex,age_approx,anatom_site_general_challenge",
        "ISIC_0000010,IP_9,male,70.0,",
    )
    text(
        tmp_path / "ISIC_2020_Training_Duplicates.csv",
        "image_name_1,image_name_2",
        "ISIC_0000002,ISIC_0000003",
    )
    dataset = load(tmp_path)
    assert (dataset.layout, dataset.taxonomy.name) == ("isic2020", "binary")
    found = labels(tmp_path)
    assert [found[name] for name in names] == ["BENIGN", "MALIGNANT", *["BENIGN"] * 3]
    groups = dataset.table.set_index("image_id")["group_id"]
    assert groups[names[0]] == groups[names[1]]
    assert groups[names[2]] == groups[names[3]] != groups[names[4]]
    assert dataset.split("test").ids == ["ISIC_0000010"]
    assert "unknown diagnosis" not in kinds(dataset)


def test_milk10k_has_labels_by_lesion(tmp_path: Path) -> None:
    base = tmp_path / "MILK10k_Training_Input" / "MILK10k_Training_Input"
    files(base / "IL_1", "ISIC_1.jpg", "ISIC_2.jpg")
    files(base / "IL_2", "ISIC_3.jpg", "ISIC_4.jpg")
    text(
        tmp_path / "MILK10k_Training_GroundTruth.csv",
        "lesion_id,AKIEC,BCC,BEN_OTH,BKL,DF,INF,MAL_OTH,MEL,NV,SCCKA,VASC",
        "IL_1,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,1.0,0.0",
        "IL_2,0.0,0.0,0.0,0.0,0.0,1.0,0.0,0.0,0.0,0.0,0.0",
    )
    text(
        tmp_path / "MILK10k_Training_Metadata.csv",
        "lesion_id,image_type,isic_id,attribution,copyright_license,image_manipulation,age_approx,"
        "sex,skin_tone_class,site",
        "IL_1,clinical: close-up,ISIC_1,A,CC-BY-NC,altered,70.0,female,1,trunk",
        "IL_1,dermoscopic,ISIC_2,A,CC-BY-NC,altered,70.0,female,1,trunk",
        "IL_2,clinical: close-up,ISIC_3,A,CC-BY-NC,altered,,male,1,trunk",
        "IL_2,dermoscopic,ISIC_4,A,CC-BY-NC,altered,,male,1,trunk",
    )
    dataset = load(tmp_path)
    assert (dataset.layout, dataset.taxonomy.name) == ("milk10k", "milk10k")
    assert list(labels(tmp_path).values()) == ["SCCKA", "SCCKA", "INF", "INF"]
    assert dataset.table["group_id"].tolist() == ["IL_1", "IL_1", "IL_2", "IL_2"]
    assert dataset.of_type().ids == ["ISIC_2", "ISIC_4"]
    assert dataset.of_type("clinical").ids == ["ISIC_1", "ISIC_3"]
    assert dataset.image_types() == {"clinical": 2, "dermoscopic": 2}
    assert len(dataset.of_type("all")) == 4


def test_derm7pt_splits_by_row_and_shows_names_by_case(tmp_path: Path) -> None:
    files(tmp_path / "images" / "NEL", "NEL010.jpg", "Nel010.jpg", "NEL011.jpg", "Nel011.jpg")
    files(tmp_path / "images" / "A1l", "Aal001a.jpg", "Aal001b.jpg")
    text(
        tmp_path / "meta" / "meta.csv",
        "case_num,diagnosis,seven_point_score,pigment_network,streaks,pigmentation,"
        "regression_structures,dots_and_globules,blue_whitish_veil,vascular_structures,"
        "level_of_diagnostic_difficulty,elevation,location,sex,management,clinic,derm,case_id,notes",
        "1,melanoma (less than 0.76 mm),4,a,a,a,a,i,a,a,low,flat,back,male,e,NEL/Nel010.jpg,"
        "NEL/NEL010.jpg,,",
        "2,reed or spitz nevus,4,a,a,a,a,i,a,a,low,flat,back,female,e,NEL/Nel011.jpg,"
        "NEL/NEL011.jpg,,",
        "3,seborrheic keratosis,4,a,a,a,a,i,a,a,low,flat,back,female,e,A1l/Aal001a.jpg,"
        "A1l/Aal001b.jpg,,",
    )
    for name, numbers in (("train", "0"), ("valid", "1"), ("test", "2")):
        text(tmp_path / "meta" / f"{name}_indexes.csv", "indexes", numbers)
    dataset = load(tmp_path)
    assert dataset.layout == "derm7pt"
    seen = dataset.of_type()
    assert dict(zip(seen.ids, seen.table["diagnosis"], strict=True)) == {
        "Aal001b": "BKL",
        "NEL010": "MEL",
        "NEL011": "NV",
    }
    assert row(dataset, "NEL010")["path"].endswith("NEL/NEL010.jpg")
    assert row(dataset, "Nel010")["path"].endswith("NEL/Nel010.jpg")
    assert row(dataset, "Nel010")["image_type"] == "clinical"
    assert row(dataset, "NEL010")["group_id"] == row(dataset, "Nel010")["group_id"]
    assert dataset.table["group_id"].nunique() == 3
    assert seen.split("validation").ids == ["NEL011"]
    assert seen.split("test").ids == ["Aal001b"]
    text(tmp_path / "meta" / "test_indexes.csv", "indexes", "3")
    with pytest.raises(Exception, match=r"test_indexes\.csv: an index is not a row"):
        load(tmp_path)


def test_pad_ufes_is_clinical_and_grouped_by_patient(tmp_path: Path) -> None:
    nested = tmp_path / "images" / "imgs_part_1" / "imgs_part_1"
    files(nested, "PAT_1_2_3.png", "PAT_1_4_5.png", "PAT_9_8_7.png")
    text(
        tmp_path / "metadata.csv",
        "patient_id,lesion_id,smoke,drink,background_father,background_mother,age,pesticide,gender,"
        "skin_cancer_history,cancer_history,has_piped_water,has_sewage_system,fitspatrick,region,"
        "diameter_1,diameter_2,diagnostic,itch,grew,hurt,changed,bleed,elevation,img_id,biopsed",
        "PAT_1,2,,,,,40,,,,,,,,FACE,,,ACK,UNK,UNK,False,UNK,False,True,PAT_1_2_3.png,False",
        "PAT_1,4,F,F,P,P,41,F,MALE,T,T,T,T,3.0,NECK,6.0,5.0,NEV,T,T,T,T,T,T,PAT_1_4_5.png,True",
        "PAT_9,8,F,F,P,P,55,F,FEMALE,T,T,T,T,3.0,ARM,6.0,5.0,SCC,T,T,T,T,T,T,PAT_9_8_7.png,True",
    )
    dataset = load(tmp_path)
    assert (dataset.layout, dataset.taxonomy.name) == ("pad_ufes", "isic2019")
    assert list(labels(tmp_path).values()) == ["AK", "NV", "SCC"]
    assert dataset.image_types() == {"clinical": 3}
    assert len(dataset.of_type()) == 3  # no image is dermoscopic, so all are used
    groups = dataset.table["group_id"].tolist()
    assert groups[0] == groups[1] != groups[2]
    assert row(dataset, "PAT_9_8_7")["sex"] == "female"
    assert row(dataset, "PAT_9_8_7")["confirmation"] == "histopathology"


PH2_TEXT = """PH2 Dataset

|| Name   ||  Histological Diagnosis ||  Clinical Diagnosis ||  Asymmetry |  Pigment Network ||
|| IMD002 ||                         ||                  0 ||         1 |               T ||
|| IMD003 ||                         ||                  1 ||         1 |               T ||
|| IMD004 ||                Melanoma ||                  2 ||         0 |              AT ||

Legends:
Clinical Diagnosis: 0 - Common Nevus; 1 - Atypical Nevus; 2 - Melanoma"""
PH2_HEADING = (
    "Image Name", "Histological Diagnosis", "Common Nevus", "Atypical Nevus", "Melanoma",
    "Asymmetry\n(0/1/2)", "Pigment Network\n(AT/T)", "Dots/Globules\n(A/AT/T)",
)  # fmt: skip


@pytest.mark.parametrize("input_spec", ["text", "workbook"])
@pytest.mark.parametrize("above", [True, False])
def test_ph2_is_read_from_text_and_workbook(tmp_path: Path, input_spec: str, above: bool) -> None:
    base = tmp_path / "PH2Dataset"
    for name in ("IMD002", "IMD003", "IMD004"):
        folder = base / "PH2 Dataset images" / name
        files(folder / f"{name}_Dermoscopic_Image", f"{name}.bmp")
        files(folder / f"{name}_lesion", f"{name}_lesion.bmp")
        files(folder / f"{name}_roi", f"{name}_R1_Label3.bmp")
    if input_spec == "text":
        text(base / "PH2_dataset.txt", PH2_TEXT)
    else:
        openpyxl = pytest.importorskip("openpyxl")
        book = openpyxl.Workbook()
        for _ in range(12):
            book.active.append([None])
        for cells in (PH2_HEADING, ("IMD002", None, "X"), ("IMD003", None, None, "X"),
                      ("IMD004", "Melanoma", None, None, "X")):  # fmt: skip
            book.active.append(cells)
        book.save(base / "PH2_dataset.xlsx")
    dataset = load(tmp_path if above else base)
    assert dataset.layout == "ph2"
    assert dataset.table["diagnosis"].tolist() == ["NV", "NV", "MEL"]
    assert dataset.with_masks().ids == ["IMD002", "IMD003", "IMD004"]
    assert row(dataset, "IMD002")["mask_path"].endswith("IMD002_lesion.bmp")
    assert dataset.problems == ()


ARCHIVE = (
    "isic_id,attribution,copyright_license,age_approx,anatom_site_general,anatom_site_special,"
    "clin_size_long_diam_mm,concomitant_biopsy,dermoscopic_type,diagnosis_1,diagnosis_2,diagnosis_3,"
    "diagnosis_4,diagnosis_5,diagnosis_confirm_type,fitzpatrick_skin_type,image_manipulation,"
    "image_type,lesion_id,melanocytic,patient_id,sex"
)
LEVELS = {
    "MEL": (
        (
            "Malignant,Malignant melanocytic proliferations (Melanoma),Melanoma Invasive,"
            '"Melanoma Invasive, Superficial spreading",'
        ),
        'Malignant,Malignant melanocytic proliferations (Melanoma),"Melanoma, NOS",,',
        (
            "Malignant,Malignant melanocytic proliferations (Melanoma),Melanoma in situ,"
            '"Melanoma in situ, Lentigo maligna type",'
        ),
    ),
    "NV": (
        'Benign,Benign melanocytic proliferations,Nevus,"Nevus, Atypical, Dysplastic, or Clark",',
        'Benign,Benign melanocytic proliferations,Nevus,Blue nevus,"Blue nevus, Cellular"',
    ),
    "BCC": (
        (
            "Malignant,Malignant adnexal epithelial proliferations - Follicular,"
            'Basal cell carcinoma,"Basal cell carcinoma, Nodular",'
        ),
    ),
    "AKIEC": (
        "Indeterminate,Indeterminate epidermal proliferations,Solar or actinic keratosis,,",
        'Malignant,Malignant epidermal proliferations,"Squamous cell carcinoma, NOS",,',
        (
            "Malignant,Malignant epidermal proliferations,Squamous cell carcinoma in situ,"
            '"Squamous cell carcinoma in situ, Bowens disease",'
        ),
    ),
    "BKL": (
        "Benign,Benign epidermal proliferations,Pigmented benign keratosis,,",
        "Benign,Benign epidermal proliferations,Solar lentigo,,",
        "Benign,Benign epidermal proliferations,Lichen planus like keratosis,,",
    ),
    "DF": ("Benign,Benign soft tissue proliferations - Fibro-histiocytic,Dermatofibroma,,",),
    "VASC": (
        "Benign,Benign soft tissue proliferations - Vascular,,,",
        "Benign,Benign soft tissue proliferations - Vascular,Hemangioma,,",
    ),
}


def archive_row(image_id: str, levels: str, kind: str = "dermoscopic") -> str:
    return f"{image_id},A,CC-0,50,head/neck,,,True,,{levels},histopathology,II,,{kind},,True,,male"


def test_archive_keeps_the_classes_of_ham10000(tmp_path: Path) -> None:
    truth: dict[str, str] = {}
    lines = [ARCHIVE]
    for code, spellings in LEVELS.items():
        for levels in spellings:
            image_id = f"ISIC_00243{6 + len(truth):02d}"
            truth[image_id] = code
            lines.append(archive_row(image_id, levels))
    files(tmp_path, *(f"{name}.jpg" for name in truth))
    text(tmp_path / "metadata.csv", *lines)
    dataset = load(tmp_path)
    assert (dataset.layout, dataset.taxonomy.name) == ("archive", "isic2018")
    assert labels(tmp_path) == truth
    assert dataset.problems == ()


@pytest.mark.parametrize(
    ("image_id", "code", "taxonomy"),
    [
        ("ISIC_0024305", "SCC", "isic2019"),
        ("ISIC_0024306", "AKIEC", "isic2018"),
        ("ISIC_0034320", "AKIEC", "isic2018"),
        ("ISIC_0034321", "SCC", "isic2019"),
        ("ISIC_1002430", "SCC", "isic2019"),
    ],
)
def test_squamous_cell_carcinoma_is_intraepithelial_in_ham10000(
    tmp_path: Path, image_id: str, code: str, taxonomy: str
) -> None:
    files(tmp_path, f"{image_id}.jpg", "ISIC_9.jpg")
    scc = LEVELS["AKIEC"][1]
    text(tmp_path / "metadata.csv", ARCHIVE, archive_row(image_id, scc),
         archive_row("ISIC_9", LEVELS["NV"][0]))  # fmt: skip
    assert labels(tmp_path) == {image_id: code, "ISIC_9": "NV"}
    assert load(tmp_path).taxonomy.name == taxonomy


def test_archive_metadata_under_the_name_of_the_website(tmp_path: Path) -> None:
    files(tmp_path / "images", "ISIC_0024306.jpg")
    text(tmp_path / "ham10000_metadata_2025-05-01.csv", ARCHIVE,
         archive_row("ISIC_0024306", LEVELS["VASC"][0]))  # fmt: skip
    assert load(tmp_path).layout == "archive"
    assert labels(tmp_path) == {"ISIC_0024306": "VASC"}


def test_archive_keeps_image_types(tmp_path: Path) -> None:
    kinds_of = ("dermoscopic", "clinical: close-up", "TBP tile: close-up", "clinical: overview", "")
    names = [f"ISIC_000000{k}" for k in range(len(kinds_of))]
    files(tmp_path / "images", *(f"{name}.jpg" for name in names))
    nevus = LEVELS["NV"][0]
    rows = [archive_row(*each) for each in zip(names, [nevus] * 5, kinds_of, strict=True)]
    text(tmp_path / "metadata.csv", ARCHIVE, *rows)
    dataset = load(tmp_path)
    assert dataset.of_type().ids == [names[0], names[4]]  # of unknown type: used
    assert dataset.image_types() == {"clinical": 2, "dermoscopic": 2, "tile": 1}
    with pytest.raises(Exception, match="no thermographic images; use one of clinical"):
        dataset.of_type("thermographic")


def test_archive_with_diagnoses_of_no_taxonomy(tmp_path: Path) -> None:
    files(tmp_path, *(f"ISIC_{k}.jpg" for k in range(4)))
    odd = "Benign,Inflammatory or infectious diseases,Verruca,,"
    rows = [archive_row(f"ISIC_{k}", odd) for k in range(3)]
    text(tmp_path / "metadata.csv", ARCHIVE, *rows, archive_row("ISIC_3", LEVELS["NV"][0]))
    with pytest.raises(Exception, match=r"most diagnoses are not understood: 'Verruca' \(3\)"):
        load(tmp_path)
    assert load(tmp_path, taxonomy="binary").taxonomy.name == "binary"
    assert set(labels(tmp_path, taxonomy="own").values()) == {"Verruca", "Nevus"}


FIELD = {
    "archive": ("archive", 23, 8, 0), "derm7pt": ("derm7pt", 36, 18, 0),
    "excel": ("labels_table", 25, 7, 0), "ham_segcls": ("labels_table", 25, 25, 25),
    "imgmask": ("images_masks", 12, 12, 12), "isic2016": ("isic2016", 12, 12, 12),
    "isic2017": ("isic2017", 12, 12, 12), "isic2019": ("isic2019", 25, 25, 0),
    "isic2020": ("isic2020", 25, 9, 0), "milk10k": ("milk10k", 28, 14, 0),
    "padufes": ("pad_ufes", 24, 12, 0), "ph2": ("ph2", 12, 12, 12),
    "plural": ("classfolders", 25, 25, 0), "two_classes": ("classfolders", 16, 16, 0),
}  # fmt: skip
"""Layout, images, groups and masks of each example."""


@pytest.mark.parametrize("name", FIELD)
def test_typical_user_folders_are_read(layout_examples: Path, tmp_path: Path, name: str) -> None:
    place_layout(layout_examples / name, tmp_path)
    layout, images, groups, masks = FIELD[name]
    dataset = load(tmp_path)
    assert dataset.layout == layout
    assert len(dataset.images()) == len(dataset) == images
    assert dataset.table["group_id"].nunique() == groups
    assert len(dataset.with_masks()) == masks


def test_every_layout_reads_what_it_matches() -> None:
    assert all(name == module.NAME and module.DESCRIPTION for name, module in LAYOUTS.items())
