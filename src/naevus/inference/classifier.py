"""The classifier: an ensemble of networks with TTA, calibration, uncertainty and OOD scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from naevus.bundles.ood import ood_statistics_of
from naevus.bundles.spec import EXPORT_AGAIN
from naevus.errors import BundleError, ConfigError, DataError
from naevus.evaluation.conformal import Conformal
from naevus.evaluation.patient import PatientModel, common_model, with_log_odds
from naevus.evaluation.priors import natural_log_probabilities, read_prevalence, reweigh
from naevus.evaluation.scaling import Scaling, corrected_weights
from naevus.images.preprocess import InputSpec
from naevus.inference.engines import instructions
from naevus.inference.ensemble import (
    Trained,
    as_sequence,
    by_input_spec,
    check_shape,
    check_together,
    class_priors_of,
    device_of,
    different_input_specs,
    faults_of,
    lacks_output,
    lacks_patient,
    mean,
    open_members,
    posterior,
    refuse_faults,
    silenced,
)
from naevus.inference.tta import averaged, each_transform, transforms_of
from naevus.taxonomy import TAXONOMIES, taxonomy_with

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from naevus.bundles.bundle import Bundle
    from naevus.bundles.spec import ClassifierMember, ClassifierSpec
    from naevus.inference.engines import EngineName, Outputs
    from naevus.inference.ensemble import Batches
    from naevus.types import TTA, Patient, Precision


def observed_features(outputs: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return the features for OOD detection, N x F: the texture output if the graph has one."""
    return outputs["texture"] if "texture" in outputs else outputs["embedding"]


class ClassifierOutput(NamedTuple):
    """A classifier's outputs for N images and C classes.

    Attributes:
        logits: N x C, the plain mean of the members' logits.
        natural: N x C calibrated probabilities under the training data's class priors, or under the
            given prevalence; given the patients' data, if there are any.
        balanced: N x C probabilities under equal class priors, given the same data.
        members: N x M x C, each member's own natural probabilities.
        uncertainty: N; None for one network without TTA. The standard deviation, over members and
            TTA, of the natural probability of the predicted class.
        sets: N x C, the classes in the prediction set; None without thresholds.
        embeddings: N x F pooled features, concatenated over members; None if a graph outputs none.
        ood_score: N out-of-distribution scores (`naevus.evaluation.ood.OODStatistics`), averaged
            over the members that have statistics; above 1 the image is flagged. None if no bundle
            has statistics.
        activations: For each member N x C x h x w class activation maps, divided by its
            temperature. Their mean over places and members is the natural logit up to a constant.
            None if a graph outputs none.
        faults: Faults of invalid outputs by image index; other values of these images are
            meaningless.
    """

    logits: NDArray[np.float32]
    natural: NDArray[np.float64]
    balanced: NDArray[np.float64]
    members: NDArray[np.float64]
    uncertainty: NDArray[np.float64] | None
    sets: NDArray[np.bool_] | None
    embeddings: NDArray[np.float32] | None
    ood_score: NDArray[np.float64] | None
    activations: tuple[NDArray[np.float32], ...] | None
    faults: dict[int, str]


class Classifier:
    """Classifies images with one or more bundles.

    Args:
        bundles: One bundle, or an ensemble of bundles with the same classes.
        tta: The TTA mode.
        engine: The inference engine.
        threads: Threads of the engine; None: one per processor of this process.
        precision: Precision of the computation.
        streams: Number of chunks of a batch that OpenVINO computes in parallel
            (`naevus.inference.engines.streams_for`); it does not change the predictions.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        prevalence: C class priors of the images' origin (`naevus.evaluation.priors`); None: those
            of the training data.

    Raises:
        BundleError: A graph is unusable.
        ConfigError: The bundles do not fit together, or the prevalence is invalid.

    Attributes:
        bundles: The bundles.
        members: The loaded members, in order.
        input_specs: Distinct input specs of the members; each needs its own batch.
        offsets: Each member's CAM offset: cells down and to the right
            (`naevus.inference.cam.cam_offset`); 0 with TTA, where offsets cancel out.
        classes: The codes, in the order of the logits.
        taxonomy: Name of the taxonomy, if it is a known one.
        class_priors: Class priors of the training data.
        transforms: The D4 transforms of the TTA mode.
        conformal: Thresholds of prediction sets. They are valid only for the predictions they were
            fitted on, so there are none with several bundles or with TTA.
        patient: How the patient's data change the odds; None unless every bundle has a model.
    """

    def __init__(
        self,
        bundles: Bundle | Sequence[Bundle],
        *,
        tta: TTA = "none",
        engine: EngineName = "openvino",
        threads: int | None = None,
        precision: Precision = "fp32",
        streams: int = 1,
        device: str = "auto",
        prevalence: Sequence[float] | None = None,
    ) -> None:
        self.bundles = as_sequence(bundles)
        check_together(self.bundles, "classification")
        self.transforms = transforms_of(tta)
        self._choices: dict[str, Any] = {
            "tta": tta,
            "engine": engine,
            "precision": precision,
            "instructions": instructions.limit(),
        }
        pairs = [(bundle, each) for bundle in self.bundles for each in bundle.classifier.members]
        self._trained = [
            Trained(_corrected(member, bundle.classifier), bundle.classifier.temperature)
            for bundle, member in pairs
        ]
        self.classes = self.bundles[0].classifier.classes
        self.taxonomy = self.bundles[0].classifier.taxonomy
        self.class_priors = class_priors_of(self._trained)
        self._prevalence = None if prevalence is None else np.asarray(prevalence, np.float64)
        # Rejects an invalid prevalence before anything is loaded.
        self._here(np.full(len(self.classes), 1 / len(self.classes)), self.class_priors)
        self.conformal = _conformal(self.bundles, tta)
        self.patient = _patient_model(self.bundles)
        self._patient_conformal = _patient_conformal(self.bundles, tta)
        self.members = open_members(
            ((bundle, member, _cropped(bundle, member)) for bundle, member in pairs),
            "logits",
            engine=engine,
            threads=threads,
            precision=precision,
            streams=streams,
            device=device,
        )
        self._choices["device"] = device_of(self.members)
        self.input_specs = different_input_specs(self.members)
        self.offsets = tuple(
            member.cam_offset if len(self.transforms) == 1 else (0.0, 0.0) for _, member in pairs
        )
        self._ood_statistics = [
            each for bundle in self.bundles for each in ood_statistics_of(bundle)
        ]
        if any(self._ood_statistics):
            self.require("embedding", "statistics of training images")

    @property
    def needs_mask(self) -> bool:
        """Whether a member's input depends on the lesion mask."""
        return any(input_spec.mode != "full" for input_spec in self.input_specs)

    def settings(self) -> dict[str, Any]:
        """Return the settings that affect predictions, in JSON's types."""
        return {
            **self._choices,
            "bundles": [bundle.sha256 for bundle in self.bundles],
            "prevalence": None if self._prevalence is None else self._prevalence.tolist(),
        }

    def info(self) -> dict[str, Any]:
        """Return networks, settings, classes and coverage, in JSON's types."""
        return {
            "networks": [member.name for member in self.members],
            **self.settings(),
            "classes": list(self.classes),
            "taxonomy": self.taxonomy,
            "coverage": None if self.conformal is None else self.conformal.coverage,
        }

    def require(self, output: str, what: str) -> None:
        """Check that every member's graph has an output.

        Args:
            output: The output's name, ``embedding`` or ``cam``.
            what: The feature that needs it, for the error message.

        Raises:
            ConfigError: A member's graph does not have the output.
        """
        for member in self.members:
            if output not in member.engine.outputs:
                raise lacks_output(member.bundle.folder, member.name, output, what)

    def require_patient(self) -> PatientModel:
        """Return the model of the patient's data.

        Raises:
            ConfigError: A bundle has none.
        """
        if self.patient is None:
            lacking = [each for each in self.bundles if each.classifier.patient is None]
            raise lacks_patient(lacking[0].folder)
        return self.patient

    def logits(self, batches: Batches, ids: Sequence[str] | None = None) -> NDArray[np.float32]:
        """Return the mean logit over members and TTA, N x C.

        Args:
            batches: N x S x S x 3 crops; one batch for each of `input_specs` if there are several.
            ids: Image ids for errors.

        Raises:
            BundleError: A network's output for an image is invalid.
        """
        outputs_of_members, faults = self._run(batches)
        refuse_faults(faults, ids)
        return mean([averaged(outputs)["logits"] for outputs in outputs_of_members])

    def predictions(
        self, batches: Batches, patients: Sequence[Patient] | None = None
    ) -> ClassifierOutput:
        """Return all outputs for a batch, with each member's class weights and priors removed.

        Args:
            batches: As for `logits`.
            patients: What is known of the patients of the N images; None: nothing.

        Raises:
            ConfigError: There are patients, and a bundle has no model of their data.
        """
        outputs_of_members, faults = self._run(batches)
        means = [averaged(outputs) for outputs in outputs_of_members]
        averaged_ = posterior([each["logits"] for each in means], self._trained)
        odds = None if patients is None else self.require_patient().log_odds(patients)
        calibrated = _with(odds, averaged_.natural)
        natural = self._here(calibrated, self.class_priors)
        own = [
            self._here(_with(odds, averaged_.members[:, number]), np.array(member.class_priors))
            for number, (member, _) in enumerate(self._trained)
        ]
        return ClassifierOutput(
            averaged_.logits,
            natural,
            _with(odds, averaged_.balanced),
            np.stack(own, axis=1),
            self._uncertainty(outputs_of_members, natural.argmax(axis=1), odds),
            self._sets(calibrated, natural, odds),
            _embeddings(means),
            self._ood_score(means),
            self._activations(means),
            faults,
        )

    def sets_of(
        self,
        natural: NDArray[np.float64],
        balanced: NDArray[np.float64],
        patients: Sequence[Patient] | None = None,
    ) -> NDArray[np.bool_] | None:
        """Return prediction sets of mean probabilities, L x C; None without thresholds.

        Args:
            natural: L x C natural probabilities, re-weighted if a prevalence was given.
            balanced: L x C balanced probabilities, from which those without prevalence follow.
            patients: The data of the L patients that the probabilities take into account.
        """
        here = natural
        if self._prevalence is not None:
            natural = reweigh(balanced, np.ones(len(self.classes)), self.class_priors)
        odds = None if patients is None else self.require_patient().log_odds(patients)
        return self._sets(natural, here, odds)

    def _run(self, batches: Batches) -> tuple[list[list[Outputs]], dict[int, str]]:
        """Return each member's outputs for each transform, and the faults by image index."""
        batch_of = by_input_spec(batches, self.input_specs)
        found = []
        faults: dict[int, str] = {}
        for member in self.members:
            batch = batch_of[member.input_spec]
            outputs = list(each_transform(member.engine.run, batch, self.transforms))
            for each in outputs:
                check_shape(member, each["logits"], (len(batch), len(self.classes)))
                faults = {**faults_of(member.name, each), **faults}
            found.append(outputs)
        numbers = sorted(faults)
        return [[silenced(each, numbers) for each in outputs] for outputs in found], faults

    def _here(
        self, natural: NDArray[np.float64], class_priors: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return natural probabilities, re-weighted if a prevalence was given."""
        return (
            natural
            if self._prevalence is None
            else reweigh(natural, class_priors, self._prevalence)
        )

    def _sets(
        self,
        natural: NDArray[np.float64],
        here: NDArray[np.float64],
        odds: NDArray[np.float64] | None,
    ) -> NDArray[np.bool_] | None:
        """Return the prediction sets; another prevalence only adds what it makes most probable.

        Images whose patients' data count have thresholds of their own.
        """
        if self.conformal is None:
            return None
        sets = self.conformal.sets(natural)
        if odds is not None and self._patient_conformal is not None:
            known = odds.any(axis=1)
            sets[known] = self._patient_conformal.sets(natural[known])
        sets[np.arange(len(sets)), here.argmax(axis=1)] = True
        return sets

    def _uncertainty(
        self,
        outputs_of_members: Sequence[Sequence[Outputs]],
        predicted: NDArray[np.intp],
        odds: NDArray[np.float64] | None,
    ) -> NDArray[np.float64] | None:
        if sum(map(len, outputs_of_members)) == 1:
            return None
        rows = np.arange(len(predicted))
        given = [
            self._here(
                _with(
                    odds,
                    np.exp(
                        natural_log_probabilities(each["logits"], member.class_weights, temperature)
                    ),
                ),
                np.array(member.class_priors),
            )[rows, predicted]
            for outputs, (member, temperature) in zip(
                outputs_of_members, self._trained, strict=True
            )
            for each in outputs
        ]
        return np.asarray(np.std(given, axis=0))

    def _ood_score(self, means: Sequence[Outputs]) -> NDArray[np.float64] | None:
        found = []
        for member, reference, each in zip(self.members, self._ood_statistics, means, strict=True):
            if reference is None:
                continue
            try:
                found.append(reference.ood_score(observed_features(each)))
            except DataError as error:
                raise BundleError(
                    f"{member.bundle.folder}: its OOD statistics do not fit the network ({error})",
                    EXPORT_AGAIN,
                ) from error
        return mean(found) if found else None

    def _activations(self, means: Sequence[Outputs]) -> tuple[NDArray[np.float32], ...] | None:
        if any("cam" not in each for each in means):
            return None
        return tuple(
            each["cam"] / np.float32(temperature)
            for each, (_, temperature) in zip(means, self._trained, strict=True)
        )


def _with(
    odds: NDArray[np.float64] | None, probabilities: NDArray[np.float64]
) -> NDArray[np.float64]:
    return probabilities if odds is None else with_log_odds(probabilities, odds)


def _embeddings(means: Sequence[Outputs]) -> NDArray[np.float32] | None:
    if any("embedding" not in each for each in means):
        return None
    return np.concatenate([each["embedding"] for each in means], axis=1)


def _corrected(member: ClassifierMember, spec: ClassifierSpec) -> ClassifierMember:
    """Return a member with its bundle's calibration offsets included in the class weights."""
    if not spec.offsets:
        return member
    weights = corrected_weights(member.class_weights, Scaling(spec.temperature, spec.offsets))
    return member.model_copy(update={"class_weights": tuple(weights.tolist())})


def _cropped(bundle: Bundle, member: ClassifierMember) -> InputSpec:
    spec = bundle.classifier
    return InputSpec(
        spec.mode_of(member),
        member.input_size,
        margin=spec.crop_margin,
        colour_constancy=spec.colour_constancy,
    )


def _conformal(bundles: Sequence[Bundle], tta: TTA) -> Conformal | None:
    spec = bundles[0].classifier.conformal
    if spec is None or len(bundles) > 1 or tta != "none":
        return None
    return Conformal.from_dict(spec.model_dump())


def _patient_model(bundles: Sequence[Bundle]) -> PatientModel | None:
    specs = [bundle.classifier.patient for bundle in bundles]
    models = [PatientModel.from_dict(spec.model_dump()) for spec in specs if spec is not None]
    return common_model(models) if len(models) == len(bundles) else None


def _patient_conformal(bundles: Sequence[Bundle], tta: TTA) -> Conformal | None:
    spec = bundles[0].classifier.patient
    if spec is None or spec.conformal is None or len(bundles) > 1 or tta != "none":
        return None
    return Conformal.from_dict(spec.conformal.model_dump())


def prevalence_of(path: Path, bundles: Sequence[Bundle]) -> list[float]:
    """Read the prevalence of each class of some classifiers.

    Args:
        path: A TOML file (`naevus.evaluation.priors.read_prevalence`).
        bundles: The classifiers' bundles.

    Raises:
        ConfigError: The file is invalid, or the classes are not known.
    """
    taxonomy = bundles[0].classifier.taxonomy if bundles else None
    if taxonomy is None:
        raise ConfigError(
            f"{path}: a prevalence needs a classifier of known diagnoses",
            f"name a bundle that knows those of {', '.join(TAXONOMIES)}",
        )
    prevalence: list[float] = read_prevalence(
        path, taxonomy_with(bundles[0].classifier.classes)
    ).tolist()
    return prevalence
