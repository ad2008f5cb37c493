import socket
import sys

import pytest

from lmray.distributed.process_group import interface_of


@pytest.mark.skipif(sys.platform != "linux", reason="interfaces are asked for as Linux has it")
def test_the_interface_of_an_address_is_the_one_that_has_it():
    assert interface_of("127.0.0.1") in dict(map(reversed, socket.if_nameindex()))
    assert interface_of("127.0.0.1").startswith("lo")
    assert interface_of("192.0.2.7") == "", "an address for documentation, nobody's"
