"""Budget-tier memory: a long history and a question become a short text, at a cost chosen per question (BudgetMem)."""
