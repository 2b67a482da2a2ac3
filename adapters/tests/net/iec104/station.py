"""A controlling station of lib60870: connects, interrogates, and prints every point that comes as a line of JSON."""

import json
import sys

import c104

import tunnel

ALL_STATIONS = 65535


def tell(**what):
    print(json.dumps(what), flush=True)


do = json.loads(sys.argv[1])
port = do["port"]
if "ca" in do:
    port = tunnel.begin(port, do, lambda reason: tell(cause="TLS", reason=reason))
client = c104.Client(tick_rate_ms=50)
# Data is begun below: c104 does that itself as a task that does nothing unless the connection is noted as open, and
# notes it after the task was given away. Beside other load the task comes first, and data never begins.
connection = client.add_connection(ip="127.0.0.1", port=port, init=c104.Init.MUTED)
# Acknowledged one by one unless said otherwise: a page that is smaller than its window waits for its timer, 10 s each.
for name, value in do.get("parameters", {"receive_window_size": 1}).items():
    setattr(connection.protocol_parameters, name, value)
station = connection.add_station(common_address=do["station"])


def changed(connection: c104.Connection, state: c104.ConnectionState) -> None:
    if state == c104.ConnectionState.OPEN_MUTED:
        connection.unmute()
    elif state == c104.ConnectionState.OPEN and not do.get("quiet"):
        connection.interrogation(common_address=ALL_STATIONS, wait_for_response=False)
        connection.clock_sync(common_address=ALL_STATIONS, wait_for_response=False)


def received(point: c104.Point, previous_info: c104.Information, message: c104.IncomingMessage) -> c104.ResponseState:
    tag = point.info.recorded_at
    tell(
        object=point.io_address,
        type=message.type.name,
        cause=message.cot.name,
        value=float(point.value),
        quality=str(point.quality),
        time=tag.isoformat() if tag else None,
    )
    return c104.ResponseState.SUCCESS


def new_point(client: c104.Client, station: c104.Station, io_address: int, point_type: c104.Type) -> None:
    point = station.add_point(io_address=io_address, type=point_type)
    point.on_receive(callable=received)


connection.on_state_change(callable=changed)
client.on_new_point(callable=new_point)
# What is known before comes to its own place at once; the callback of a new point comes too late for its first value.
for address, kind in do["points"]:
    station.add_point(io_address=address, type=getattr(c104.Type, kind)).on_receive(callable=received)
client.start()
sys.stdin.read()
client.stop()
