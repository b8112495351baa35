"""Automatic choice of engine, precision and instruction set on this machine.

The fastest precision differs between processors, and processors do not report reliably what works.
Each setup is therefore tried in its own process and checked on the bundle's sample (`trial`). This
happens once per machine and bundle; the result is stored beside the compiled networks.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from naevus.bundles.sample import compared, distance, read_sample, sample_batch
from naevus.errors import ConfigError, NaevusError
from naevus.inference.engines import instructions
from naevus.inference.engines.base import unable
from naevus.inference.engines.devices import check_device
from naevus.inference.engines.onnxruntime import OnnxRuntimeEngine
from naevus.inference.engines.openvino import CompiledCache
from naevus.inference.engines.trial import ROUNDS, TIMEOUT, EngineSetup, Result, TrialNetwork, tried
from naevus.io.extras import how_to_install
from naevus.io.files import sha256_of, write_json
from naevus.runs.environment import processor
from naevus.types import EngineChoice

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from naevus.bundles.bundle import Bundle
    from naevus.inference.engines.base import Engine
    from naevus.types import EngineName, Precision

    Trials = dict[EngineSetup, list[Result]]
    Report = Callable[[str], None]

GAIN: Final = 1.1
"""Speed relative to fp32 that another setup must reach to be chosen."""
LIMIT_S: Final = 15.0
"""Time limit of a trial in seconds."""
ATTEMPTS: Final = 3
"""How often to repeat a trial that had no time for all rounds, as on a busy machine."""
PATIENCE_S: Final = 180.0
"""Time limit for fp32, or for a requested setup, in seconds: slow machines compile slowly."""
_AUTOMATIC: Final = "automatic"
_TASKS: Final = ("segmentation", "classification")
_PLAIN: Final = EngineSetup("openvino", "fp32")
_LAST: Final = EngineSetup("onnxruntime", "fp32")


def setup_of(choice: EngineChoice, task: str) -> EngineSetup:
    """Return the setup of a task's networks."""
    computed = choice.segmentation if task == "segmentation" else choice.classification
    return EngineSetup(choice.engine, computed, choice.limit)


def choose(
    bundles: Sequence[Bundle],
    *,
    engine: EngineName | None = None,
    precision: Precision | None = None,
    device: str = "auto",
    used: Collection[Path] | None = None,
    report: Report,
) -> EngineChoice:
    """Choose how to run the networks of bundles on this machine.

    Args:
        bundles: The bundles of one ensemble.
        engine: The requested engine; None: choose the best.
        precision: The requested precision; None: choose the best.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``. A GPU needs ONNX Runtime; ONNX Runtime on
            a requested device is not tried, but checked when it is opened.
        used: The graphs that the job runs; None: all of the bundles. A requested precision needs to
            suit only these. Without a request all count, so that all jobs choose the same.
        report: Called with one-line messages about the trials and their result.

    Returns:
        The requested setup, if it runs. Without a request: OpenVINO in fp32 if results cannot be
        stored or a bundle has no sample, otherwise the fastest valid setup. Another setup than fp32
        must be `GAIN` times as fast.

    Raises:
        ConfigError: The requested setup does not run here, or none does.
    """
    kind = check_device(device, engine)
    if kind == "cuda" or (kind == "cpu" and engine == "onnxruntime"):
        computed = precision or "fp32"
        return EngineChoice("onnxruntime", computed, computed, None, "named", device=device)
    choice = _chosen(bundles, engine, precision, used, report)
    sure = choice.tried and (kind == "auto" or choice.engine == "openvino")
    return choice._replace(device=device, tried=sure)


def _chosen(
    bundles: Sequence[Bundle],
    engine: EngineName | None,
    precision: Precision | None,
    used: Collection[Path] | None,
    report: Report,
) -> EngineChoice:
    named = _named(engine, precision)
    if named is None:
        used = None
    networks = [each for bundle in bundles for each in trial_networks(bundle)]
    kept = _kept(networks, bundles, f"{engine} {precision}" if engine or precision else _AUTOMATIC)
    if kept is None:
        if named is not None:
            return EngineChoice(named.engine, named.precision, named.precision, None, "named")
        return EngineChoice(why="results cannot be stored, so no setup was tried")
    trials = _read(kept)
    if trials is not None:
        return decide(*_of_used(_usable(trials), networks, used))
    setups = [named] if named is not None else candidates(bundles, engine)
    if len(setups) > 1:
        report(
            f"Timing the networks again, for up to {LIMIT_S:.0f} s: the machine was too busy."
            if _attempts(kept)
            else f"Finding the fastest way to run the networks, once, for up to {LIMIT_S:.0f} s."
        )
    trials = tried(setups, networks, limit_s=LIMIT_S, patience_s=PATIENCE_S)
    sound = _sound(_usable(trials), networks)
    if named is None and engine is None and not sound and _version(_LAST.engine):
        trials |= tried([_LAST], networks, limit_s=PATIENCE_S, patience_s=PATIENCE_S)
    _write(kept, trials)
    choice = decide(*_of_used(_usable(trials), networks, used))
    if named is None and any(bundle.spec.sample is None for bundle in bundles):
        choice = choice._replace(why="a bundle has no sample to check other setups with")
        report(describe(choice, trials))
    elif len(trials) > 1:
        report(describe(choice, trials))
    return choice


def verify(engine: Engine, network: TrialNetwork) -> None:
    """Check a loaded network on its bundle's sample.

    Raises:
        BundleError: The network fails, or the sample is unusable.
        ConfigError: The outputs are wrong.
    """
    if network.sample is None:
        return
    path = Path(network.path)
    sample = read_sample(Path(network.sample), {path.name: network.size})
    outputs = compared(engine.run(sample_batch(sample.pixels, network.size)))
    off, allowed = distance(outputs, sample.predictions[path.name]), network.tolerances
    if not off <= allowed.get(engine.precision, allowed["fp32"]):
        name: EngineName = "onnxruntime" if isinstance(engine, OnnxRuntimeEngine) else "openvino"
        raise unable(path, name, engine.precision, f"wrong outputs, off by {off:.2g}")


def installed(choice: EngineChoice) -> bool:
    """Return whether the engine of a choice is installed."""
    return _version(choice.engine) is not None


def trial_networks(bundle: Bundle) -> list[TrialNetwork]:
    """Return a bundle's networks for a trial."""
    sample, classifier = bundle.spec.sample, bundle.spec.classifier
    classifying = () if classifier is None else classifier.members
    return [
        TrialNetwork(
            # All networks that output masks use the same precision.
            "classification" if member in classifying else "segmentation",
            str(bundle.member_path(member)),
            member.input_size,
            None if sample is None else str(bundle.folder / sample.file),
            {} if sample is None else {**sample.tolerances[member.file]},
        )
        for member in bundle.spec.members
    ]


def candidates(bundles: Sequence[Bundle], engine: EngineName | None = None) -> list[EngineSetup]:
    """Return the setups to try, OpenVINO in fp32 first."""
    if engine == "onnxruntime":
        return [_LAST]
    if any(bundle.spec.sample is None for bundle in bundles):
        return [_PLAIN]
    bf16_recommended = any(
        bundle.spec.recommended_precision(task) == "bf16"
        for bundle in bundles
        for task in bundle.spec.tasks
    )
    computed: list[Precision] = (
        ["fp32", "bf16"] if bf16_recommended and instructions.has_bf16() else ["fp32"]
    )
    held = (None,) if instructions.users_limit() else instructions.limits()
    return [EngineSetup("openvino", precision, limit) for limit in held for precision in computed]


def decide(trials: Trials, networks: Sequence[TrialNetwork]) -> EngineChoice:
    """Return the fastest valid setup of a trial.

    Segmentation and classification may use different precisions. OpenVINO in fp32 is chosen unless
    another setup is `GAIN` times as fast, by the median over rounds.

    Raises:
        ConfigError: No setup is valid.
    """
    choices = _sound(trials, networks)
    if not choices:
        raise _nothing(trials)
    plain = next((one for one in choices if one[:4] == ("openvino", "fp32", "fp32", None)), None)
    if plain is None or len(choices) == 1:
        fastest = min(choices, key=lambda one: sum(_rounds(one, trials, networks)))
        why = "the only one that runs" if len(choices) == 1 else "the fastest"
        return fastest._replace(why=why)
    base = _rounds(plain, trials, networks)
    gains = {one: _gain(base, _rounds(one, trials, networks)) for one in choices}
    best = max(choices, key=gains.__getitem__)
    if gains[best] < GAIN:
        late = "" if _timed(trials) else ", or there was no time to measure it"
        return plain._replace(why=f"no other setup is {GAIN:g} times as fast{late}")
    return best._replace(why=f"{gains[best]:.2f} times as fast as fp32")


def describe(choice: EngineChoice, trials: Trials) -> str:
    """Return one line about a trial: the choice, and the rejected setups with reasons."""
    line = f"Networks run in {choice}: {choice.why}."
    failed = [f"{setup} ({problem})" for setup, problem in rejected(trials).items()]
    return f"{line} Rejected: {'; '.join(failed)}." if failed else line


def rejected(trials: Mapping[EngineSetup, Sequence[Result]]) -> dict[EngineSetup, str]:
    """Return the setups in which a network failed, with the problem of the first such network."""
    problems = ((setup, [each.problem for each in found]) for setup, found in trials.items())
    return {setup: next(filter(None, some)) for setup, some in problems if any(some)}


def trials_of(bundle: Bundle, *, again: bool = False) -> Trials:
    """Return the trials of all setups for a bundle's networks, running them if needed.

    The stored results of OpenVINO's setups decide how all later jobs run.

    Args:
        bundle: The bundle.
        again: Whether to repeat trials that are already stored.
    """
    networks = trial_networks(bundle)
    found: Trials = {}
    for name, setups in ((_AUTOMATIC, candidates([bundle])), ("last", [_LAST])):
        if setups == [_LAST] and _version(_LAST.engine) is None:
            continue
        kept = _kept(networks, [bundle], name)
        trials = _read(kept) if kept is not None and not again else None
        if trials is None:
            trials = tried(setups, networks, limit_s=LIMIT_S, patience_s=PATIENCE_S, rounds=ROUNDS)
            if kept is not None:
                _write(kept, trials)
        found |= trials
    return found


def chosen_of(trials: Trials, networks: Sequence[TrialNetwork]) -> EngineChoice:
    """Return the choice that follows from trials, as in `choose`.

    Raises:
        ConfigError: No setup runs.
    """
    choice = decide(_usable(trials), networks)
    if CompiledCache.of_user() is None and choice.engine == "openvino":
        return EngineChoice(why="results cannot be stored, so no other setup is tried")
    return choice


def _named(engine: EngineName | None, precision: Precision | None) -> EngineSetup | None:
    if precision is not None:
        return EngineSetup(engine or "openvino", precision)
    return _LAST if engine == "onnxruntime" else None


def _usable(trials: Trials) -> Trials:
    """Return the setups this process can still use: its instruction set may be fixed by now."""
    if instructions.settable():
        return trials
    usable = {setup: found for setup, found in trials.items() if setup.limit == instructions.held()}
    return usable or trials


def _of_used(
    trials: Trials, networks: Sequence[TrialNetwork], used: Collection[Path] | None
) -> tuple[Trials, list[TrialNetwork]]:
    """Return the networks that are used, and their results; None: all."""
    numbers = [n for n, each in enumerate(networks) if used is None or Path(each.path) in used]
    found = {setup: [results[n] for n in numbers] for setup, results in trials.items()}
    return found, [networks[n] for n in numbers]


def _sound(trials: Trials, networks: Sequence[TrialNetwork]) -> list[EngineChoice]:
    """Return the choices with which all networks run; a task without networks counts as fp32."""
    there = {network.task for network in networks}
    found: list[EngineChoice] = []
    for one in trials:
        for other in trials:
            if (one.engine, one.limit) != (other.engine, other.limit):
                continue
            pair = (one.precision, other.precision)
            contours, diagnoses = (
                precision if task in there else "fp32"
                for task, precision in zip(_TASKS, pair, strict=True)
            )
            choice = EngineChoice(one.engine, contours, diagnoses, one.limit, tried=True)
            if choice not in found and _runs(choice, trials, networks):
                found.append(choice)
    # ONNX Runtime is the last resort.
    return [each for each in found if each.engine == "openvino"] or found


def _runs(choice: EngineChoice, trials: Trials, networks: Sequence[TrialNetwork]) -> bool:
    return all(
        trials[setup_of(choice, network.task)][number].problem is None
        for number, network in enumerate(networks)
    )


def _rounds(choice: EngineChoice, trials: Trials, networks: Sequence[TrialNetwork]) -> list[float]:
    """Return the total seconds per round, for rounds in which every network was timed."""
    each = [
        trials[setup_of(choice, network.task)][number].seconds
        for number, network in enumerate(networks)
    ]
    return [sum(some) for some in zip(*each, strict=False)]


def _gain(base: Sequence[float], other: Sequence[float]) -> float:
    if min(len(base), len(other)) < ROUNDS:
        return 1.0
    return statistics.median(one / two for one, two in zip(base, other, strict=False))


def _nothing(trials: Trials) -> ConfigError:
    found = rejected(trials)
    if {*found.values()} == {TIMEOUT}:
        return ConfigError(
            f"the networks did not start within {PATIENCE_S:.0f} s",
            "try again when the machine is less busy, name another engine, or set "
            "NAEVUS_CACHE=off to start without a trial",
        )
    problems = "; ".join(f"{setup}: {why}" for setup, why in found.items())
    remedy = "name another engine or precision" if len(trials) == 1 else "try another machine"
    if not _version(_LAST.engine):
        remedy = f"{how_to_install('onnxruntime')}, or name another engine, or {remedy}"
    return ConfigError(f"the networks do not run here ({problems})", remedy)


def _version(package: str) -> str | None:
    # The build for GPUs is another package with the same modules.
    for name in (package, "onnxruntime-gpu") if package == "onnxruntime" else (package,):
        with suppress(PackageNotFoundError):
            return version(name)
    return None


def _kept(networks: Sequence[TrialNetwork], bundles: Sequence[Bundle], named: str) -> Path | None:
    """Return the file of stored trials; None if they cannot be stored or run."""
    cache = CompiledCache.of_user()
    if cache is None or not networks or not sys.executable:
        return None
    name, able = processor()
    key = sha256_of(
        name,
        " ".join(sorted(able)),
        str(_version("openvino")),
        str(_version("onnxruntime")),
        str(_version("naevus")),
        str(instructions.users_limit()),
        named,
        *(bundle.sha256 for bundle in bundles),
        *(network.path for network in networks),
    )
    try:
        cache.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return None
    return cache.folder / f"choice-{key[:32]}.json" if os.access(cache.folder, os.W_OK) else None


def _read(kept: Path) -> Trials | None:
    """Return stored trials; None if there are none, or they should be repeated."""
    try:
        content = json.loads(kept.read_bytes())
        attempts = int(content["attempts"])
        trials = {
            EngineSetup(*setup): [
                Result(problem, distance, tuple(seconds)) for problem, distance, seconds in results
            ]
            for setup, results in content["trials"]
        }
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return trials if trials and (attempts >= ATTEMPTS or _timed(trials)) else None


def _timed(trials: Trials) -> bool:
    """Return whether all setups that run were timed, if there are several."""
    results = [each for found in trials.values() for each in found]
    return len(trials) == 1 or all(
        each.problem != TIMEOUT and (each.problem or len(each.seconds) >= ROUNDS)
        for each in results
    )


def _attempts(kept: Path) -> int:
    """Return how many trials of a choice have been stored."""
    try:
        return int(json.loads(kept.read_bytes())["attempts"])
    except (OSError, ValueError, TypeError, KeyError):
        return 0


def _write(kept: Path, trials: Trials) -> None:
    """Store trials, unless the first setup timed out, as on a busy machine."""
    first = next(iter(trials.values()))
    if any(each.problem == TIMEOUT for each in first):
        return
    entries = [[list(setup), [list(each) for each in found]] for setup, found in trials.items()]
    try:
        write_json(kept, {"attempts": _attempts(kept) + 1, "trials": entries})
    except NaevusError:  # a full disk: the next job tries again
        return
