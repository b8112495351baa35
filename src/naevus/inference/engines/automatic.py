"""How networks are run on this machine where nobody says it.

Which precision is fastest, and which runs at all, differs between processors, and their own report
cannot be trusted: it is tried. Each way is tried in a process of its own and judged by its answers
to the bundle's sample (`trial`). This happens once a machine and bundle; the verdict lies beside
the compiled networks.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from naevus.bundles.sample import compared, distance, read_sample, sample_batch
from naevus.errors import ConfigError, NaevusError
from naevus.inference.engines import instructions
from naevus.inference.engines.base import unable
from naevus.inference.engines.onnxruntime import OnnxRuntimeEngine
from naevus.inference.engines.openvino import CompiledCache
from naevus.inference.engines.trial import ROUNDS, TIMEOUT, EngineSetup, Result, TrialNetwork, tried
from naevus.io.files import sha256_of, write_json
from naevus.types import EngineChoice

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from naevus.bundles.bundle import Bundle
    from naevus.inference.engines.base import Engine
    from naevus.types import EngineName, Precision

    Trials = dict[EngineSetup, list[Result]]
    Report = Callable[[str], None]

GAIN: Final = 1.1
"""How much faster than fp32 another way must be to be taken."""
LIMIT_S: Final = 15.0
"""How long a trial may take, seconds."""
ATTEMPTS: Final = 3
"""How often it is tried where there was no time for all rounds, as on a busy machine."""
PATIENCE_S: Final = 60.0
"""How long is waited for fp32, or for what was named: slow machines compile slowly."""
_AUTOMATIC: Final = "automatic"
_TASKS: Final = ("segmentation", "classification")
_PLAIN: Final = EngineSetup("openvino", "fp32")
_LAST: Final = EngineSetup("onnxruntime", "fp32")


def way_of(choice: EngineChoice, task: str) -> EngineSetup:
    """Return the way in which a task's networks are run."""
    computed = choice.segmentation if task == "segmentation" else choice.classification
    return EngineSetup(choice.engine, computed, choice.limit)


def choose(
    bundles: Sequence[Bundle],
    *,
    engine: EngineName | None = None,
    precision: Precision | None = None,
    report: Report,
) -> EngineChoice:
    """Decide how the networks of some bundles are run on this machine.

    Args:
        bundles: The bundles that answer together.
        engine: What is to run them; None: what is best.
        precision: What they are to compute in; None: what is best.
        report: Told, in a line, what is tried and what came of it.

    Returns:
        What was named, where it runs; else OpenVINO in fp32 where nothing can be kept, or there is
        no sample to judge by; and else the fastest sound way, fp32 unless another is `GAIN` times
        as fast.

    Raises:
        ConfigError: What was named does not run here, or nothing does.
    """
    named = _named(engine, precision)
    networks = [each for bundle in bundles for each in trial_networks(bundle)]
    kept = _kept(networks, bundles, f"{engine} {precision}" if engine or precision else _AUTOMATIC)
    if kept is None:
        if named is not None:
            return EngineChoice(named.engine, named.precision, named.precision, None, "named")
        return EngineChoice(why="nothing can be kept, so nothing was tried")
    trials = _read(kept)
    if trials is not None:
        return decide(_usable(trials), networks)
    setups = [named] if named is not None else candidates(bundles, engine)
    if len(setups) > 1:
        report(f"Trying how networks run best here, once, for up to {LIMIT_S:.0f} s.")
    trials = tried(setups, networks, limit_s=LIMIT_S, patience_s=PATIENCE_S)
    sound = _sound(_usable(trials), networks)
    if named is None and engine is None and not sound and _version(_LAST.engine):
        trials |= tried([_LAST], networks, limit_s=PATIENCE_S, patience_s=PATIENCE_S)
    _write(kept, trials)
    choice = decide(_usable(trials), networks)
    if named is None and any(bundle.spec.sample is None for bundle in bundles):
        choice = choice._replace(why="a bundle holds no sample that others could be judged by")
        report(describe(choice, trials))
    elif len(trials) > 1:
        report(describe(choice, trials))
    return choice


def verify(engine: Engine, network: TrialNetwork) -> None:
    """Let a loaded network answer the sample, where it was not tried before.

    Raises:
        BundleError: It fails, or the sample cannot be used.
        ConfigError: Its answers are wrong.
    """
    if network.sample is None:
        return
    path = Path(network.path)
    sample = read_sample(Path(network.sample), {path.name: network.size})
    answer = compared(engine.run(sample_batch(sample.pixels, network.size)))
    off, allowed = distance(answer, sample.predictions[path.name]), network.tolerances
    if not off <= allowed.get(engine.precision, allowed["fp32"]):
        name: EngineName = "onnxruntime" if isinstance(engine, OnnxRuntimeEngine) else "openvino"
        raise unable(path, name, engine.precision, f"wrong answers, off by {off:.2g}")


def installed(choice: EngineChoice) -> bool:
    """Tell whether the engine of a choice is installed."""
    return _version(choice.engine) is not None


def trial_networks(bundle: Bundle) -> list[TrialNetwork]:
    """Return a bundle's networks as they are tried."""
    sample, classifier = bundle.spec.sample, bundle.spec.classifier
    classifying = () if classifier is None else classifier.members
    return [
        TrialNetwork(
            # Whatever gives masks computes in the same precision.
            "classification" if member in classifying else "segmentation",
            str(bundle.member_path(member)),
            member.input_size,
            None if sample is None else str(bundle.folder / sample.file),
            {} if sample is None else {**sample.tolerances[member.file]},
        )
        for member in bundle.spec.members
    ]


def candidates(bundles: Sequence[Bundle], engine: EngineName | None = None) -> list[EngineSetup]:
    """Return the ways that are tried, OpenVINO in fp32 first."""
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
    """Return the fastest sound way of trials.

    Networks that contour and those that diagnose may compute in different precisions. OpenVINO in
    fp32 is taken unless another is `GAIN` times as fast, by the median over rounds.

    Raises:
        ConfigError: None is sound.
    """
    choices = _sound(trials, networks)
    if not choices:
        raise _nothing(trials)
    plain = next((one for one in choices if one[:4] == ("openvino", "fp32", "fp32", None)), None)
    if plain is None or len(choices) == 1:
        fastest = min(choices, key=lambda one: sum(_rounds(one, trials, networks)))
        return fastest._replace(why="all that runs" if len(choices) == 1 else "the fastest")
    base = _rounds(plain, trials, networks)
    gains = {one: _gain(base, _rounds(one, trials, networks)) for one in choices}
    best = max(choices, key=gains.__getitem__)
    if gains[best] < GAIN:
        late = "" if _timed(trials) else ", or there was no time to see"
        return plain._replace(why=f"no other is {GAIN:g} times as fast{late}")
    return best._replace(why=f"{gains[best]:.2f} times as fast as fp32")


def describe(choice: EngineChoice, trials: Trials) -> str:
    """Return what came of trials, in a line: what is taken, and what was passed over and why."""
    line = f"Networks run in {choice}: {choice.why}."
    failed = [f"{setup} ({problem})" for setup, problem in passed_over(trials).items()]
    return f"{line} Passed over: {'; '.join(failed)}." if failed else line


def passed_over(trials: Mapping[EngineSetup, Sequence[Result]]) -> dict[EngineSetup, str]:
    """Return the ways in which a network cannot be run, and what became of the first."""
    problems = ((setup, [each.problem for each in found]) for setup, found in trials.items())
    return {setup: next(filter(None, some)) for setup, some in problems if any(some)}


def trials_of(bundle: Bundle, *, again: bool = False) -> Trials:
    """Return what came, or comes now, of all ways to run a bundle's networks.

    What OpenVINO's ways came to decides on all later jobs, where it can be kept.

    Args:
        bundle: The bundle.
        again: Whether they are tried even if they were before.
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
    """Return what is chosen by trials, as `choose` does.

    Raises:
        ConfigError: Nothing runs.
    """
    choice = decide(_usable(trials), networks)
    if CompiledCache.of_user() is None and choice.engine == "openvino":
        return EngineChoice(why="nothing can be kept, so nothing else is tried")
    return choice


def _named(engine: EngineName | None, precision: Precision | None) -> EngineSetup | None:
    if precision is not None:
        return EngineSetup(engine or "openvino", precision)
    return _LAST if engine == "onnxruntime" else None


def _usable(trials: Trials) -> Trials:
    """Return the ways that this process can still take: the instructions may be fixed by now."""
    if instructions.settable():
        return trials
    usable = {setup: found for setup, found in trials.items() if setup.limit == instructions.held()}
    return usable or trials


def _sound(trials: Trials, networks: Sequence[TrialNetwork]) -> list[EngineChoice]:
    """Return what all networks can be run in; a task without networks counts as fp32."""
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
        trials[way_of(choice, network.task)][number].problem is None
        for number, network in enumerate(networks)
    )


def _rounds(choice: EngineChoice, trials: Trials, networks: Sequence[TrialNetwork]) -> list[float]:
    """Return the seconds of all networks in each round that all of them were timed in."""
    each = [
        trials[way_of(choice, network.task)][number].seconds
        for number, network in enumerate(networks)
    ]
    return [sum(some) for some in zip(*each, strict=False)]


def _gain(base: Sequence[float], other: Sequence[float]) -> float:
    if min(len(base), len(other)) < ROUNDS:
        return 1.0
    return statistics.median(one / two for one, two in zip(base, other, strict=False))


def _nothing(trials: Trials) -> ConfigError:
    problems = "; ".join(f"{setup}: {why}" for setup, why in passed_over(trials).items())
    remedy = "name another engine or precision" if len(trials) == 1 else "try another machine"
    if not _version(_LAST.engine):
        remedy = "run pip install 'naevus[onnxruntime]', another engine, or " + remedy
    return ConfigError(f"the networks do not run here ({problems})", remedy)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _kept(networks: Sequence[TrialNetwork], bundles: Sequence[Bundle], named: str) -> Path | None:
    """Return where a verdict is kept; None where nothing can be, or no child can be started."""
    cache = CompiledCache.of_user()
    if cache is None or not networks or not sys.executable:
        return None
    name, able = instructions.processor()
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
    """Return what was kept; None where there is nothing of use, or it is to be tried again."""
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
    """Tell whether all that runs could be timed, if there is anything to compare."""
    results = [each for found in trials.values() for each in found]
    return len(trials) == 1 or all(
        each.problem != TIMEOUT and (each.problem or len(each.seconds) >= ROUNDS)
        for each in results
    )


def _write(kept: Path, trials: Trials) -> None:
    """Keep what came of trials, but for those that a slow moment may have spoilt."""
    first = next(iter(trials.values()))
    if any(each.problem == TIMEOUT for each in first):
        return
    try:
        before = int(json.loads(kept.read_bytes())["attempts"])
    except (OSError, ValueError, TypeError, KeyError):
        before = 0
    entries = [[list(setup), [list(each) for each in found]] for setup, found in trials.items()]
    try:
        write_json(kept, {"attempts": before + 1, "trials": entries})
    except NaevusError:  # a full disk: it is tried again next time
        return
