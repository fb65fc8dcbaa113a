"""ResourceQuota: what a namespace uses of what it may use.

Only counting happens here. That nothing goes beyond a quota is the server's business, in the moment of the write.
"""
