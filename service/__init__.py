"""The kvorum server: a configuration store on top of the Raft library."""
