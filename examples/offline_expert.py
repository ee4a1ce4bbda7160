"""The warehouse's rule as a model that a configuration can name: ``offline_expert:Expert``."""

from warehouse import expert

from agentcascade import Price, ScriptedModel


class Expert(ScriptedModel):
    def __init__(self, **_: object) -> None:
        super().__init__(expert, name="scripted-expert", price=Price(input=3, output=15))
