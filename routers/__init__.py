"""Who takes this step. Each router implements `agentcascade.protocols.Router`."""
