"""A model of ours as lm-eval's `LM`: all three request types on its own scoring and writing. Extra `eval`.

Import this file only where lm-eval is installed. Values depend on the content of a request and the settings alone, not
on batches, order or ranks.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from anyorder.evaluation.answers import Scoring, encode_question, key_of, log_likelihoods
from anyorder.evaluation.chat import ChatTemplate
from anyorder.evaluation.greedy import check_when, is_greedy
from anyorder.evaluation.ledger import Ledger
from anyorder.evaluation.remembered import OnDone, answered, nobody, rolled, written
from anyorder.evaluation.subject import Subject
from anyorder.evaluation.writing import Writing, writing_of

SCORING, WRITING = Scoring(), Writing()  # as the model's kind has them


@dataclasses.dataclass(frozen=True)
class Tally:
    """What the requests of a run took, and how sure they are.

    Args:
        scored: requests for a likelihood; 0 for tasks that write.
        nfe: network passes.
        unsettled: documents whose winner the draws did not settle.
        cut: requests whose prompt was cut on the left.
        short: requests with less room to write than was asked for.
        stderr: root mean square of the Monte-Carlo standard errors of log-likelihoods, nats; nan without any.
    """

    scored: int = 0
    nfe: int = 0
    unsettled: int = 0
    cut: int = 0
    short: int = 0
    stderr: float = math.nan

    def plus(self, more: "Tally") -> "Tally":
        """Both together, with the newer standard error."""
        return Tally(
            scored=self.scored + more.scored,
            nfe=self.nfe + more.nfe,
            unsettled=self.unsettled + more.unsettled,
            cut=self.cut + more.cut,
            short=self.short + more.short,
            stderr=self.stderr if math.isnan(more.stderr) else more.stderr,
        )


class BridgeLM(LM):  # type: ignore[misc]
    """`lm_eval.simple_evaluate(model=BridgeLM(subject), tasks=...)`.

    Args:
        scoring: how answers are scored. Those of one document with one context share their masks.
        writing: what `generation_kwargs` do not say.
        greedy: when `is_greedy` is worth its passes: "auto", where a document has a single continuation (LAMBADA);
            "always", also for tasks of several answers whose metric is exact_match; "never". Elsewhere it is False.
        context: tokens that each window of a long document but the first reads without scoring them.
        chat: the template for `apply_chat_template`.
    Raises:
        ValueError: an unknown `greedy`.
    """

    def __init__(
        self,
        subject: Subject,
        *,
        scoring: Scoring = SCORING,
        writing: Writing = WRITING,
        greedy: str = "auto",
        context: int = 0,
        chat: ChatTemplate | None = None,
        ledger: Ledger | None = None,
        on_done: OnDone = nobody,
    ) -> None:
        super().__init__()
        check_when(greedy)
        self.plain = self.subject = subject
        self.scoring, self.writing, self.greedy, self.context = scoring, writing, greedy, context
        self.chat, self.ledger, self.on_done = chat, ledger or Ledger(None), on_done
        self.tally = Tally()

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """(log p of the continuation given the context, whether it is what the model writes greedily); nats."""
        groups: dict[tuple[Any, ...], list[int]] = {}
        for i, request in enumerate(requests):
            groups.setdefault((request.task_name, request.doc_id, request.args[0]), []).append(i)
        asked = [(key[2], [requests[i].args[1] for i in where]) for key, where in groups.items()]
        made = answered(self.subject, asked, self.scoring, ledger=self.ledger, on_done=self.on_done)
        contexts = Counter(key[:2] for key in groups)
        alone = [self._wants_greedy(len(where), contexts[key[:2]], key[1]) for key, where in groups.items()]
        greedy = iter(self._greedy([a for a, yes in zip(asked, alone) if yes]))
        found: dict[int, tuple[float, bool]] = {}
        for where, answers, yes in zip(groups.values(), made, alone):
            same = next(greedy) if yes else (False,) * len(where)
            found |= {i: (ll, s) for i, ll, s in zip(where, log_likelihoods(answers.nats), same)}
        more = Tally(
            scored=len(requests),
            nfe=sum(a.nfe for a in made),
            unsettled=sum(not a.settled for a in made),
            cut=sum(a.cut > 0 for a in made),
            stderr=_root_mean_square([e for a in made for e in a.stderr]),
        )
        self.tally = self.tally.plus(more)
        return [self._keep("loglikelihood", requests[i], found[i]) for i in range(len(requests))]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """log p of whole documents of any length, in windows (`likelihood.rolling`); a bound for a masked model."""
        made = rolled(
            self.subject,
            [request.args[0] for request in requests],
            self.scoring,
            context=self.context,
            ledger=self.ledger,
            on_done=self.on_done,
        )
        more = Tally(
            scored=len(requests), nfe=sum(r.nfe for r in made), stderr=_root_mean_square([r.stderr for r in made])
        )
        self.tally = self.tally.plus(more)
        values = log_likelihoods([r.nats for r in made])
        return [self._keep("loglikelihood_rolling", request, value) for request, value in zip(requests, values)]

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """What the model writes after each context until a stop string, as the request's `generation_kwargs` say."""
        how = [writing_of(request.args[1], self.writing) for request in requests]
        prompts = [request.args[0] for request in requests]
        made = written(self.subject, prompts, how, ledger=self.ledger, on_done=self.on_done)
        cut, short = sum(w.cut > 0 for w in made), sum(w.short > 0 for w in made)
        self.tally = self.tally.plus(Tally(nfe=sum(w.nfe for w in made), cut=cut, short=short))
        return [self._keep("generate_until", request, w.text) for request, w in zip(requests, made)]

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A conversation as a prompt; from then on the template's special tokens are read as such in all prompts.

        Raises:
            ValueError: the model's folder has no chat template.
        """
        if self.chat is None:
            raise ValueError(
                "the model's folder has no chat template (chat_template in tokenizer_config.json); evaluate without one"
            )
        self.subject = replace(self.plain, specials=self.chat.specials)
        return self.chat.render(chat_history, add_generation_prompt=add_generation_prompt)

    @property
    def tokenizer_name(self) -> str:
        """Names the tokenizer where lm-eval keeps requests."""
        return self.subject.tokenizer.hash

    def chat_template(self, chat_template: bool | str = False) -> str:
        """The text of the template; "" if there is none or it is not asked for."""
        return self.chat.template if self.chat is not None and chat_template else ""

    def _wants_greedy(self, continuations: int, contexts: int, doc: int | None) -> bool:
        """Whether a group is worth the check: all there is of its document is one continuation of one context."""
        if self.greedy != "auto":
            return self.greedy == "always"
        return continuations == 1 and (contexts == 1 or doc is None)

    def _greedy(self, asked: list[tuple[str, list[str]]]) -> list[tuple[bool, ...]]:
        guidance = self.scoring.guidance
        keys = [key_of(self.subject, "greedy", prompt, answers, float(guidance)) for prompt, answers in asked]
        todo = {key: a for key, a in zip(keys, asked) if self.ledger.get(key) is None}
        questions = [encode_question(self.subject, prompt, answers).question for prompt, answers in todo.values()]
        made = is_greedy(self.subject, questions, guidance=guidance)
        self.ledger.put({key: list(same) for key, same in zip(todo, made)})
        return [tuple(self.ledger.get(key) or ()) for key in keys]

    def _keep(self, kind: str, request: Instance, value: Any) -> Any:
        """Tell lm-eval's own cache, if it keeps one."""
        self.cache_hook.add_partial(kind, request.args, value)
        return value


def _root_mean_square(values: Sequence[float]) -> float:
    return math.sqrt(math.fsum(v * v for v in values) / len(values)) if values else math.nan
