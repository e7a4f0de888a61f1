"""A link of one's own: rates from a table of channel gains, by Shannon's formula."""

import numpy as np
from pydantic import Field

import fedray


class GainTable(fedray.Link):
    """Between client k and the server, in round t: B log2(1 + p g / (N_0 B)) bits per second, with the gain g
    of the table's row k and column t. Each client has a band of its own."""

    class Section(fedray.Link.Section):
        gains: fedray.FilePath = Field(
            description="A CSV file of gains in dB: a row a client, a column a round. After the last column "
            "comes the first again."
        )
        bandwidth_hz: float = Field(gt=0, description="Hertz of each client's band, B.")
        transmit_w: float = Field(gt=0, description="Watts of the sender, p.")
        noise_dbm_hz: float = Field(default=-174.0, description="Spectral density of the noise, N_0.")

    def __init__(self, section: Section, context: fedray.LinkContext) -> None:
        super().__init__(section, context)
        gains_db = np.loadtxt(context.folder / section.gains, delimiter=",", ndmin=2)
        if len(gains_db) < context.clients:
            raise fedray.Refused(
                f"{context.key}.gains", f"{len(gains_db)} rows", f"one for each of {context.clients} clients"
            )
        noise_w = 10 ** (section.noise_dbm_hz / 10) / 1000 * section.bandwidth_hz
        snr = section.transmit_w * 10 ** (gains_db / 10) / noise_w
        self.table_bps = section.bandwidth_hz * np.log2(1 + snr)

    def rates_bps(self, start: fedray.RoundStart, sender: np.ndarray, receiver: np.ndarray) -> np.ndarray:
        column = (start.round_number - 1) % self.table_bps.shape[1]
        return self.table_bps[fedray.link_client(sender, receiver), column]

    def transfers(self, start: fedray.RoundStart, requests: fedray.TransferRequests) -> fedray.TransferCosts:
        time_s = 8 * requests.nbytes / self.rates_bps(start, requests.sender, requests.receiver)
        never_lost = np.zeros(len(time_s), bool)
        return fedray.TransferCosts(time_s, self.section.transmit_w * time_s, never_lost)
