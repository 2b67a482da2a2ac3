"""An outstation of lib60870 that keeps its events for one controlling station over all its connections.

The Python face of c104 gives each connection a queue of its own, which is lost with the connection. So the C functions
of its library are called here. It does what outstation.py does, for the types M_ME_TF_1 and M_SP_NA_1 alone.
"""

import ctypes
import json
import sys
import time
from ctypes import CFUNCTYPE, POINTER, c_bool, c_float, c_int, c_uint8, c_uint64, c_void_p

from c104 import _c104

lib = ctypes.CDLL(_c104.__file__)
SINGLE_REDUNDANCY_GROUP = 0
SPONTANEOUS, INTERROGATED = 3, 20
GOOD = 0


def function(name, result, *arguments):
    found = getattr(lib, name)
    found.restype, found.argtypes = result, arguments
    return found


create = function("CS104_Slave_create", c_void_p, c_int, c_int)
set_address = function("CS104_Slave_setLocalAddress", None, c_void_p, ctypes.c_char_p)
set_port = function("CS104_Slave_setLocalPort", None, c_void_p, c_int)
set_mode = function("CS104_Slave_setServerMode", None, c_void_p, c_int)
layer = function("CS104_Slave_getAppLayerParameters", c_void_p, c_void_p)
limits = function("CS104_Slave_getConnectionParameters", POINTER(c_int * 6), c_void_p)
begin = function("CS104_Slave_start", None, c_void_p)
connections = function("CS104_Slave_getOpenConnections", c_int, c_void_p)
enqueue = function("CS104_Slave_enqueueASDU", None, c_void_p, c_void_p)
Handler = CFUNCTYPE(c_bool, c_void_p, c_void_p, c_void_p, c_uint8)
set_interrogation = function("CS104_Slave_setInterrogationHandler", None, c_void_p, Handler, c_void_p)
confirm = function("IMasterConnection_sendACT_CON", c_bool, c_void_p, c_void_p, c_bool)
end = function("IMasterConnection_sendACT_TERM", c_bool, c_void_p, c_void_p)
answer = function("IMasterConnection_sendASDU", c_bool, c_void_p, c_void_p)
asdu_create = function("CS101_ASDU_create", c_void_p, c_void_p, c_bool, c_int, c_int, c_int, c_bool, c_bool)
asdu_add = function("CS101_ASDU_addInformationObject", c_bool, c_void_p, c_void_p)
asdu_destroy = function("CS101_ASDU_destroy", None, c_void_p)
destroy = function("InformationObject_destroy", None, c_void_p)
short = function("MeasuredValueShort_create", c_void_p, c_void_p, c_int, c_float, c_uint8)
short_at = function("MeasuredValueShortWithCP56Time2a_create", c_void_p, c_void_p, c_int, c_float, c_uint8, c_void_p)
single = function("SinglePointInformation_create", c_void_p, c_void_p, c_int, c_bool, c_uint8)
instant = function("CP56Time2a_createFromMsTimestamp", c_void_p, c_void_p, c_uint64)

slave = None
number = 0
points = {}


def give(cause, made, how):
    asdu = asdu_create(layer(slave), False, cause, 0, number, False, False)
    asdu_add(asdu, made)
    destroy(made)
    how(asdu)
    asdu_destroy(asdu)


@Handler
def interrogated(_parameter, connection, asked, _whom):
    confirm(connection, asked, False)
    for address, (kind, value) in points.items():
        made = short(None, address, value, GOOD) if kind == "M_ME_TF_1" else single(None, address, bool(value), GOOD)
        give(INTERROGATED, made, lambda asdu: answer(connection, asdu))
    end(connection, asked)
    return True


def start(do):
    global slave, number
    slave, number = create(1000, 100), do["station"]
    set_address(slave, b"127.0.0.1")
    set_port(slave, do["port"])
    set_mode(slave, SINGLE_REDUNDANCY_GROUP)
    # k, w, t0, t1, t2, t3.
    for place, value in do.get("limits", {}).items():
        limits(slave).contents["k w t0 t1 t2 t3".split().index(place)] = value
    points.update({address: (kind, value) for address, kind, value in do["points"]})
    set_interrogation(slave, interrogated, None)
    begin(slave)
    return True


last = 0


def send(do):
    """Sends values of one point, each as an event with a time tag of its own."""
    global last
    for value in do["values"]:
        last = max(last + 1, int(time.time() * 1000))
        tag = (c_uint8 * 7)()
        instant(tag, last)
        give(SPONTANEOUS, short_at(None, do["object"], value, GOOD, tag), lambda asdu: enqueue(slave, asdu))
    return True


for line in sys.stdin:
    do = json.loads(line)
    if do["do"] == "start":
        said = start(do)
    elif do["do"] == "send":
        said = send(do)
    else:
        said = connections(slave)
    print(json.dumps(said), flush=True)
