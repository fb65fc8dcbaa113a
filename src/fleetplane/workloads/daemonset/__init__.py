"""DaemonSet: one pod on every node that wants one."""
