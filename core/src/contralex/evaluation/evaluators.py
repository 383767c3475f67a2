"""The one list of evaluators: those that ``eval`` of a spec names, and those of the plugins that it uses. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from contralex.errors import ContralexError
from contralex.evaluation.base import Accuracy, EvalContext, Evaluator
from contralex.plugins.registry import Plugin, hook_manager
from contralex.recipes.run_spec import ClassifySpec, KNNSpec, LinearSpec, RunSpec

if TYPE_CHECKING:
    from contralex.lookup.slots import Encoder


class KNNEvaluator(Evaluator):
    name, label, figure, silenced_by = "knn", "kNN", "kNN figure", "eval.knn=null"
    has_baselines = True

    def __init__(self, spec: KNNSpec | None = None) -> None:
        super().__init__(spec or KNNSpec())

    def evaluate(self, encoder: Encoder | None, context: EvalContext, *, baseline: bool = False) -> Accuracy:
        from contralex.evaluation.knn import evaluate_knn

        return evaluate_knn(
            encoder,
            context.source,
            context.views,
            self.spec,
            context.batch_size,
            context.device,
            context.workers,
            baseline=baseline,
            cache=context.cache,
        )

    def settings(self, protocol: Mapping[str, Any]) -> str:
        return "weighted kNN: k={k}, temperature {temperature}, {features}".format(**protocol)

    def samples(self, protocol: Mapping[str, Any]) -> str:
        return "{train_samples} to look up, {test_samples} to evaluate on".format(**protocol)

    def footnote(self, protocol: Mapping[str, Any]) -> str:
        return "kNN: top-1 %, k={k}, temperature {temperature}, {features}.".format(**protocol)


class LinearEvaluator(Evaluator):
    name, label, figure, silenced_by = "linear", "linear", "linear probe", "eval.linear=null"
    has_baselines = True

    def __init__(self, spec: LinearSpec | None = None) -> None:
        super().__init__(spec or LinearSpec())

    def evaluate(self, encoder: Encoder | None, context: EvalContext, *, baseline: bool = False) -> Accuracy:
        from contralex.evaluation.linear import evaluate_linear

        return evaluate_linear(
            encoder,
            context.source,
            context.views,
            self.spec,
            context.batch_size,
            context.device,
            context.workers,
            baseline=baseline,
            cache=context.cache,
        )

    def settings(self, protocol: Mapping[str, Any]) -> str:
        scaled = ", standardised" if protocol["standardize"] else ""
        missed = f", not converged in {protocol['iterations']} iterations (raise eval.linear.iterations)"
        return (
            f"linear probe: weight decay {protocol['weight_decay']:g}{scaled}{'' if protocol['converged'] else missed}"
            f", {protocol['features']}"
        )

    def samples(self, protocol: Mapping[str, Any]) -> str:
        return "{train_samples} to learn from, {test_samples} to evaluate on".format(**protocol)

    def footnote(self, protocol: Mapping[str, Any]) -> str:
        return (
            f"linear: top-1 %, logistic regression on {protocol['features']} features, weight decay "
            f"{protocol['weight_decay']:g}."
        )


class ClassifyEvaluator(Evaluator):
    """The accuracy of an encoder whose vectors are logits."""

    name, label, figure, silenced_by = "classify", "classified", "accuracy", "eval.classify=null"

    def __init__(self, spec: ClassifySpec | None = None) -> None:
        super().__init__(spec or ClassifySpec())

    def evaluate(self, encoder: Encoder | None, context: EvalContext, *, baseline: bool = False) -> Accuracy:
        from contralex.evaluation.classification import evaluate_classifier

        if encoder is None:
            raise ContralexError("eval.classify: raw pixels are no logits, so there is no accuracy to evaluate.")
        return evaluate_classifier(
            encoder, context.source, context.views, context.batch_size, context.device, context.workers
        )

    def sentence(self, result: Mapping[str, Any]) -> str:
        return (
            f"Classified {result['protocol']['test_samples']} test samples: "
            f"top-1 {result['top1']:.1%}, top-5 {result['top5']:.1%}"
        )

    def footnote(self, protocol: Mapping[str, Any]) -> str:
        return "classified: top-1 %, the encoder's vectors are logits."


OWN: dict[str, type[KNNEvaluator | LinearEvaluator | ClassifyEvaluator]] = {
    evaluator.name: evaluator for evaluator in (KNNEvaluator, LinearEvaluator, ClassifyEvaluator)
}


def evaluators(spec: RunSpec, plugins: Iterable[Plugin]) -> list[Evaluator]:
    """All that a run is evaluated by, in the order in which it is. ``plugins``: those that the spec uses."""
    blocks = {name: getattr(spec.eval, name) for name in OWN}
    found: list[Evaluator] = [OWN[name](block) for name, block in blocks.items() if block is not None]
    for plugin in plugins:
        found += _offered(plugin, spec, {evaluator.name for evaluator in found})
    return found


def evaluator_named(name: str, spec: RunSpec, plugins: Iterable[Plugin]) -> Evaluator:
    """One of the run's evaluators; or one of contralex's own with its default settings, where the spec has ``null``."""
    known = {evaluator.name: evaluator for evaluator in evaluators(spec, plugins)}
    if name in known:
        return known[name]
    if name in OWN:
        return OWN[name]()
    raise ContralexError(f"eval {name}: this run has no evaluator of this name; it has {', '.join({**OWN, **known})}.")


def _offered(plugin: Plugin, run: RunSpec, there: set[str]) -> list[Evaluator]:
    if "contralex_evaluators" not in plugin.hooks:
        return []
    hook = f"the plugin {plugin.name} failed in its hook contralex_evaluators"
    manager = hook_manager()
    manager.register(plugin.module)
    try:
        found = [each for offered in manager.hook.contralex_evaluators(spec=run) for each in offered]
    except ContralexError:
        raise
    except (Exception, SystemExit) as error:
        raise ContralexError(f"{hook}: {type(error).__name__}: {error}") from error
    for each in found:
        if not isinstance(each, Evaluator):
            raise ContralexError(f"{hook}: it returned {each!r:.60}, which is no contralex.plugin.Evaluator")
        if each.name in there:
            raise ContralexError(f"{hook}: there is another evaluator {each.name!r}; give it another name")
        there.add(each.name)
    return found
