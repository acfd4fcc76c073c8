"""A small result in place of a run's own: what comes after training is tried with it before.

Nothing of it is published. It has one step and answers that hold any character, so that whatever
writes a report has to cope with what a model may say.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from trainer.dataset.eval_questions import Question
from trainer.errors import JobError, SettingsError
from trainer.evaluation.compare import Evaluation, Scores
from trainer.monitoring.step_log import StepRow
from trainer.planner.choose import Execution
from trainer.runtime.last_words import errno_of
from trainer.runtime.log import one_line

if TYPE_CHECKING:
    from trainer.training.keep import Kept
    from trainer.training.loop import TrainingResult

_MOST_QUESTIONS = 10
_ANSWER = "an answer → 日本 \U0001f600 <b>&amp;</b> `|` \x1b[8m\x00\u2028"


def stand_in(questions: Sequence[Question], execution: Execution) -> "tuple[TrainingResult, Kept]":
    """Of a run of one step that was asked the first of `questions`."""
    from trainer.training.keep import Kept
    from trainer.training.loop import TrainingResult

    row: StepRow = {"step": 1, "loss": 1.0, "grad_norm": 1.0, "learning_rate": 1e-4, "tokens": 1}
    row |= {"seconds": 1.0, "tokens_per_s": 1.0, "memory_gib": None, "held_out_loss": 1.0}
    trained = TrainingResult(1, 1.0, 1.0, None, execution, [row], planned_steps=1)
    asked = tuple(questions[:_MOST_QUESTIONS])
    answered = Scores(
        loss=1.0, end_loss=1.0, perplexity=2.7, exact=0.0, f1=0.0, answers=(_ANSWER,) * len(asked)
    )
    return trained, Kept(1, "it is the last", Evaluation(answered, answered, asked))


@contextmanager
def before_training() -> Iterator[None]:
    """Whatever fails would fail after the training, each time: so it ends the run now, as what
    cannot be helped by another start."""
    try:
        yield
    except (JobError, OSError):
        raise
    except Exception as error:
        if errno_of(error) is not None:  # of a library in Rust, whose errors are no OSError
            raise
        words = one_line(f"{type(error).__name__}: {error}", 200)
        raise SettingsError(
            f"what this run would publish cannot be written ({words}), so nothing is trained; look "
            "in the files of the base model, which go into its report and card"
        ) from error
