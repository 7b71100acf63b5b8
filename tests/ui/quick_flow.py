"""The flow over `tests.ui.quick_stage` in place of the real stage commands; what a served deployment imports."""

import flows.plan
from configs.schema import STAGE_KINDS
from flows import approval
from flows.derive import derive

flows.plan.STAGE_MODULES.update({kind: "tests.ui.quick_stage" for kind in STAGE_KINDS})
approval.POLL_S = 1

__all__ = ["derive"]
