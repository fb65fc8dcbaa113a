"""ResourceQuota: usage is claimed before a write, given back when it fails, and released when objects go."""
