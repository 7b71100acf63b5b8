"""Judges that are models: a language model behind an address or in this process, and a reward model from a folder.

    from verifiers.judge import JudgeServer, JudgeVerifier, RuleThenJudge

A model-based verifier needs an address or a folder and a rubric, so none is built in: a plugin of a few lines makes one
(`docs/verifiers/judges.md`). What its settings are is so part of its source, which a run's lineage holds.

`prompt` fences what is judged, `server` and `local_model` ask, `verifier` decides whose fault a silence is,
`rule_then_judge` keeps a judge below a rule, `reward_model` scores with a classification head.
"""

from verifiers.judge.local_model import LocalModel
from verifiers.judge.reward_model import RewardModelVerifier
from verifiers.judge.rule_then_judge import RuleThenJudge
from verifiers.judge.server import JudgeServer
from verifiers.judge.verifier import JudgeVerifier

__all__ = ["JudgeServer", "JudgeVerifier", "LocalModel", "RewardModelVerifier", "RuleThenJudge"]
