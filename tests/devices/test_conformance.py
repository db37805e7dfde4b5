"""The ssh and adb transports in the conformance suite for everyone's transports, on the test devices."""

from __future__ import annotations

import pytest
from tests.devices.conftest import android
from tests.devices.phone import Phone

from edgekd.devices.schema import Device
from edgekd.testing import TransportSuite


class TestSsh(TransportSuite):
    name = "ssh"
    large = 4 << 20  # the board's programs are emulated

    @pytest.fixture
    def device(self, pi4: Device) -> Device:
        return pi4


class TestAdb(TransportSuite):
    name = "adb"
    large = 4 << 20

    @pytest.fixture
    def device(self, test_phone: Phone) -> Device:
        return android(test_phone)
