"""Budget-tier memory (BudgetMem): a long history and a question become a short text, at a cost chosen per question.

`Memory` is the public class; `agentcascade.build_memory` makes one. New modules subclass `modules.base.Module`.
"""
