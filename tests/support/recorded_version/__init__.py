"""What a released version stored, recorded from its running processes, so that later versions can prove that they read it.

`python -m tests.support.recorded_version --from FOLDER --name NAME` records the version that is installed in FOLDER.
"""
