"""Serves the interop functions with StateFun's Python SDK, unmodified.

`server.py [--port PORT] [--version 1|2]` prints `listening on PORT` when it does, and ends when its
standard input closes.
"""

import argparse
import logging
import os
import sys
import threading
from datetime import timedelta

from aiohttp import web
from statefun import (BoolType, DoubleType, FloatType, IntType, LongType, RequestReplyHandler,
                      StatefulFunctions, StringType, ValueSpec, egress_message_builder,
                      kafka_egress_message, kinesis_egress_message, make_json_type,
                      message_builder, simple_type)

from commands import Commands, VerificationResult

TEXTS = 'interop/texts'
VALUES = 'interop/values'
SUMS = 'interop/sums'
RECORDS = 'interop/records'
INTERPRETER = 'statefun.smoke.e2e/command-interpreter-fn'

NoteType = simple_type('interop/note', lambda note: note.encode(), lambda raw: bytes(raw).decode())
UserType = make_json_type('interop/user')
CommandsType = simple_type('statefun.smoke.e2e/commands',
                           Commands.SerializeToString, Commands.FromString)
VerificationResultType = simple_type('statefun.smoke.e2e/verification-result',
                                     VerificationResult.SerializeToString,
                                     VerificationResult.FromString)

functions = StatefulFunctions()
requests = 0


def emit_text(context, text):
    context.send_egress(egress_message_builder(TEXTS, text, StringType))


def emit_sum(context, number):
    context.send_egress(egress_message_builder(SUMS, number, IntType))


def shown(value):
    return '-' if value is None else str(value)


@functions.bind('interop/greeter', [ValueSpec('seen', IntType)])
def greeter(context, message):
    context.storage.seen = (context.storage.seen or 0) + 1
    text = f'Hello {message.as_string()}, for the {context.storage.seen}th time'
    if context.caller:
        caller = context.caller
        context.send(message_builder(caller.typename, caller.id, str_value=text))
    emit_text(context, text)


KINDS = {
    'as_bool': BoolType,
    'as_int': IntType,
    'as_long': LongType,
    'as_float': FloatType,
    'as_double': DoubleType,
    'as_string': StringType,
    'as_note': NoteType,
    'as_user': UserType,
}


@functions.bind('interop/values', [ValueSpec(name, kind) for name, kind in KINDS.items()])
def values(context, message):
    if message.is_string() and message.as_string() == '!clear':
        for name in KINDS:
            delattr(context.storage, name)
        return
    for name, kind in KINDS.items():
        if message.is_type(kind):
            before = getattr(context.storage, name)
            if before is not None:
                context.send_egress(egress_message_builder(VALUES, before, kind))
            value = message.as_type(kind)
            setattr(context.storage, name, value)
            context.send_egress(egress_message_builder(VALUES, value, kind))
            return
    raise ValueError(f'nothing is known of type {message.value_typename()}')


@functions.bind('interop/keeper', [
    ValueSpec('written', StringType, expire_after_write=timedelta(seconds=1)),
    ValueSpec('called', StringType, expire_after_call=timedelta(seconds=1)),
    ValueSpec('kept', StringType),
])
def keeper(context, message):
    state = context.storage
    match message.as_string().split(' '):
        case ['set', value]:
            state.written = state.called = state.kept = value
        case ['get']:
            emit_text(context, f'written={shown(state.written)} called={shown(state.called)} '
                               f'kept={shown(state.kept)}')
        case ['poke']:
            pass
        case other:
            raise ValueError(f'what is {other}?')


@functions.bind('interop/scheduler')
def scheduler(context, message):
    match message.as_string().split(' '):
        case ['after', delay, token, text]:
            own = message_builder(context.address.typename, context.address.id,
                                  str_value=f'fired {text}')
            context.send_after(timedelta(milliseconds=int(delay)), own,
                               '' if token == '-' else token)
        case ['cancel', token]:
            context.cancel_delayed_message(token)
        case ['fired', text]:
            emit_text(context, text)
        case other:
            raise ValueError(f'what is {other}?')


@functions.bind('interop/forwarder')
def forwarder(context, message):
    target, id, text = message.as_string().split(' ')
    context.send(message_builder(target, id, str_value=text))


@functions.bind('interop/records')
def records(context, message):
    match message.as_string().split(' '):
        case ['kafka', topic, key, value]:
            context.send_egress(kafka_egress_message(RECORDS, topic=topic, key=key, value=value))
        case ['kinesis', stream, key, value]:
            context.send_egress(kinesis_egress_message(RECORDS, stream=stream, partition_key=key,
                                                       value=value))
        case other:
            raise ValueError(f'what is {other}?')


@functions.bind('interop/adder', [ValueSpec('sum', IntType)])
def adder(context, message):
    context.storage.sum = (context.storage.sum or 0) + message.as_int()
    emit_sum(context, context.storage.sum)


@functions.bind('interop/requests')
def count_requests(context, message):
    emit_sum(context, requests)


@functions.bind('interop/failing')
def failing(context, message):
    if message.as_string() == 'fail':
        raise ValueError('it was told to')
    emit_text(context, message.as_string())


@functions.bind('interop/shared', [
    ValueSpec('text', StringType),
    ValueSpec('number', IntType),
    ValueSpec('note', NoteType),
])
def shared(context, message):
    state = context.storage
    match message.as_string().split(' '):
        case ['write', text, number]:
            state.text, state.number, state.note = text, int(number), text
        case ['read']:
            emit_text(context, f'{shown(state.text)} {shown(state.number)} {shown(state.note)}')
        case other:
            raise ValueError(f'what is {other}?')


def bind_version(version):
    """Binds what is not the same in all versions."""
    if version == 1:
        @functions.bind('interop/changing', [ValueSpec('first', IntType)])
        def changing(context, message):
            context.storage.first = (context.storage.first or 0) + 1
            emit_text(context, f'first={context.storage.first} second=-')
        return

    @functions.bind('interop/changing', [ValueSpec('first', IntType), ValueSpec('second', IntType)])
    def changed(context, message):
        context.storage.first = (context.storage.first or 0) + 1
        context.storage.second = (context.storage.second or 0) + 1
        emit_text(context, f'first={context.storage.first} second={context.storage.second}')

    @functions.bind('interop/appeared')
    def appeared(context, message):
        emit_text(context, f'appeared {message.as_string()}')


@functions.bind(INTERPRETER, [ValueSpec('state', LongType)])
def interpreter(context, message):
    def commands_for(command):
        return message_builder(INTERPRETER, str(command.target), value=command.commands,
                               value_type=CommandsType)

    for command in message.as_type(CommandsType).command:
        match command.WhichOneof('command'):
            case 'increment':
                context.storage.state = (context.storage.state or 0) + 1
            case 'send':
                context.send(commands_for(command.send))
            case 'send_after':
                context.send_after(timedelta(milliseconds=1), commands_for(command.send_after))
            case 'send_egress':
                context.send_egress(egress_message_builder('statefun.smoke.e2e/discard-sink',
                                                           'discarded', StringType))
            case 'verify':
                result = VerificationResult(id=int(context.address.id),
                                            expected=command.verify.expected,
                                            actual=context.storage.state or 0)
                context.send_egress(egress_message_builder('statefun.smoke.e2e/verification-sink',
                                                           result, VerificationResultType))
            case other:
                raise ValueError(f'what is {other}?')


async def handle(request):
    global requests
    requests += 1
    answer = await handler.handle_async(await request.read())
    return web.Response(body=answer, content_type='application/octet-stream')


def announce(text):
    # aiohttp tells where it listens, and more.
    for word in text.split():
        if word.startswith('http://'):
            print('listening on', word.rsplit(':', 1)[1], flush=True)


def end_with_standard_input():
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == '__main__':
    options = argparse.ArgumentParser()
    options.add_argument('--port', type=int, default=0)
    options.add_argument('--version', type=int, choices=[1, 2], default=1)
    options = options.parse_args()
    bind_version(options.version)
    handler = RequestReplyHandler(functions)
    threading.Thread(target=end_with_standard_input, daemon=True).start()
    # Functions fail here because they are told to. Whoever called hears of it.
    logging.getLogger('aiohttp.server').setLevel(logging.CRITICAL)
    app = web.Application(client_max_size=64 << 20)
    app.router.add_post('/{path:.*}', handle)
    web.run_app(app, host='127.0.0.1', port=options.port, access_log=None, print=announce)
