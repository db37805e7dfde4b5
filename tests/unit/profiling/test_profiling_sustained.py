"""Energy and sustained minutes, with the meters of a board in a folder; what meters print is captured text."""

import pytest
from tests.unit.profiling.test_profiling_protocol import EMULATED, HOST, SHORT, Board, run
from tests.words import notes

from edgekd.profiling import heat, sustained
from edgekd.profiling.on_device import meters

PMIC = """\
     3V7_WL_SW_A current(0)=0.00390372A
       3V3_SYS_A current(1)=0.09076149A
       1V8_SYS_A current(2)=0.17762060A
      DDR_VDD2_A current(3)=0.02439904A
      VDD_CORE_A current(7)=0.79510000A
     3V7_WL_SW_V volt(8)=3.71125500V
       3V3_SYS_V volt(9)=3.31107700V
       1V8_SYS_V volt(10)=1.80170100V
      DDR_VDD2_V volt(11)=1.10463300V
      VDD_CORE_V volt(15)=0.85000000V
         EXT5V_V volt(24)=5.15584000V
          BATT_V volt(25)=0.00000000V
"""
"""Of `vcgencmd pmic_read_adc` on a Raspberry Pi 5, without some of its rails."""


def test_the_rails_of_a_raspberry_pi_5_are_added_up():
    expected = 0.00390372 * 3.711255 + 0.09076149 * 3.311077 + 0.1776206 * 1.801701 + 0.02439904 * 1.104633 + 0.7951 * 0.85
    assert meters.rails_watts(PMIC) == pytest.approx(expected)
    with pytest.raises(ValueError, match="no rails: 'error=1"):  # a Raspberry Pi 4
        meters.rails_watts('error=1 error_msg="Command not registered"')


def test_rapl_counts_packages_and_begins_again(tmp_path):
    zones = {"0": "261000000", "0:0": "7", "1": "1000000"}
    for zone, value in zones.items():
        folder = tmp_path / f"sys/class/powercap/intel-rapl:{zone}"
        folder.mkdir(parents=True)
        (folder / "energy_uj").write_text(value)
        (folder / "max_energy_range_uj").write_text("262143328850")
    meter = meters.find(tmp_path)
    assert meter.name == "RAPL, processor packages: 2"
    meter.start()
    (tmp_path / "sys/class/powercap/intel-rapl:1/energy_uj").write_text("3500000")
    assert meter.stop()[0] == pytest.approx(2.5)
    meter.start()
    (tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj").write_text("1000000")
    assert meter.stop()[0] == pytest.approx(262143.32885 - 260)


def test_a_battery_counts_only_while_it_is_emptied(tmp_path):
    folder = tmp_path / "sys/class/power_supply/battery"
    folder.mkdir(parents=True)
    for name, text in {"type": "Battery", "status": "Charging", "current_now": "-512000", "voltage_now": "4000000"}.items():
        (folder / name).write_text(text + "\n")
    assert meters.find(tmp_path) is None
    (folder / "status").write_text("Discharging\n")
    meter = meters.find(tmp_path)
    meter.start()
    joules, seconds = meter.stop()
    assert (meter.name, joules / seconds) == ("battery", pytest.approx(2.048))


def test_a_machine_without_a_meter_has_none(tmp_path):
    assert meters.find(tmp_path) is None


class Pi5(Board):
    """A board whose power chip is a file."""

    def __init__(self, root):
        super().__init__(root)
        program = root / "usr/bin/vcgencmd"
        program.parent.mkdir(parents=True)
        program.write_text(f"#!/bin/sh\n[ $1 = pmic_read_adc ] && cat '{root}/rails'\n")
        program.chmod(0o755)
        self.set(watts=1.0)

    def set(self, watts=None, **others):
        super().set(**others)
        if watts is not None:
            (self.root / "rails").write_text(f"VDD_CORE_A current(7)={watts}A\nVDD_CORE_V volt(15)=1.0V\n")


def test_energy_is_above_idle_and_minutes_have_medians(nets, tmp_path, monkeypatch):
    monkeypatch.setattr(sustained, "METER_S", 0.3)
    monkeypatch.setattr(sustained, "WINDOW_S", 0.1)
    board = Pi5(tmp_path / "board")
    board.at["energy of one"] = {"watts": 3.0}
    board.at["energy of two"] = {"watts": 0.5}
    found = run(nets, tmp_path, board, HOST, SHORT.model_copy(update={"sustained_minutes": 0.005}))
    one, two = found.profiles
    assert one.energy.meter == "power chip of the board (PMIC), all rails"
    assert 0 < one.energy.mj < 2000 * 0.3
    assert two.energy is None, "below idle"
    assert len(one.sustained.medians) == len(one.sustained.celsius) >= 1
    assert 0 < one.sustained.minutes < 0.006
    assert not found.notes or not any("not measured to the end" in note for note in notes(found.notes))


def test_the_minutes_begin_when_the_device_is_cool(nets, tmp_path, monkeypatch):
    """By then the agents that were timed have ended."""
    monkeypatch.setattr(heat, "STEP_S", 0.05)
    monkeypatch.setattr(sustained, "WINDOW_S", 0.1)
    board = Pi5(tmp_path / "board")
    board.at |= {"read one": {"celsius": 81.0}, "cooling down: 81": {"celsius": 60.0}, "energy of two": {"celsius": 82.0}}
    device = EMULATED.model_copy(update={"max_celsius": 70.0, "wait_s": 0.2})
    found = run(nets, tmp_path, board, device, SHORT.model_copy(update={"sustained_minutes": 0.005}))
    assert any(step.startswith("cooling down: 81 °C, waiting for 70 °C") for step in board.told)
    hot = f"two on {device.name}: the minutes without a pause began at 82 °C, above max_celsius 70, after 0 s of waiting"
    assert [note for note in notes(found.notes) if "without a pause" in note] == [hot]


def test_an_emulated_device_has_no_energy(nets, tmp_path):
    board = Pi5(tmp_path / "board")
    assert [record.energy for record in run(nets, tmp_path, board, EMULATED).profiles] == [None, None]
    assert "power while nothing is measured" not in board.told
