"""Host detection: what this machine is, in Spack's names. Start at `detect.detect`."""
