"""The ACL in a web worker: who asks, what that one may do, and ``/v1/acl/`` (decision 17)."""
