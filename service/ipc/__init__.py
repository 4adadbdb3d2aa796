"""The socket between web workers and the agent."""
