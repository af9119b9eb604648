"""The programs are run as scripts, never collected."""

collect_ignore_glob = ["programs/*"]
