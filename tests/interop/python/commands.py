"""The messages of StateFun's smoke test, as protobuf classes.

They are those of `examples/smoke/commands.proto`, as far as remote interpreters are sent them, put
together here so that nobody needs a compiler for them.
"""

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = 'statefun.smoke.e2e'
KINDS = {
    'int32': descriptor_pb2.FieldDescriptorProto.TYPE_INT32,
    'int64': descriptor_pb2.FieldDescriptorProto.TYPE_INT64,
    'string': descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
}


def describe(within, name, *fields, repeated=False, one_of=None):
    """Adds a message with these fields, each a number, a type and a name."""
    message = within.add(name=name)
    if one_of:
        message.oneof_decl.add(name=one_of)
    for number, kind, name in fields:
        label = 'LABEL_REPEATED' if repeated else 'LABEL_OPTIONAL'
        label = getattr(descriptor_pb2.FieldDescriptorProto, label)
        field = message.field.add(name=name, number=number, label=label)
        if kind in KINDS:
            field.type = KINDS[kind]
        else:
            field.type = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
            field.type_name = f'.{PACKAGE}.{kind}'
        if one_of:
            field.oneof_index = 0
    return message


file = descriptor_pb2.FileDescriptorProto(name='commands.proto', package=PACKAGE, syntax='proto3')
messages = file.message_type
describe(messages, 'Commands', (1, 'Command', 'command'), repeated=True)
command = describe(messages, 'Command',
                   (1, 'Command.IncrementState', 'increment'),
                   (2, 'Command.Send', 'send'),
                   (3, 'Command.SendAfter', 'send_after'),
                   (4, 'Command.SendEgress', 'send_egress'),
                   (6, 'Command.Verify', 'verify'),
                   one_of='command').nested_type
describe(command, 'IncrementState')
describe(command, 'Send', (1, 'int32', 'target'), (2, 'Commands', 'commands'))
describe(command, 'SendAfter', (1, 'int32', 'target'), (2, 'Commands', 'commands'),
         (3, 'string', 'cancellation_token'))
describe(command, 'SendEgress')
describe(command, 'Verify', (1, 'int64', 'expected'))
describe(messages, 'VerificationResult',
         (1, 'int32', 'id'), (2, 'int64', 'expected'), (3, 'int64', 'actual'))

pool = descriptor_pool.DescriptorPool()
pool.Add(file)


def message(name):
    described = pool.FindMessageTypeByName(f'{PACKAGE}.{name}')
    return message_factory.MessageFactory(pool).GetPrototype(described)


Commands = message('Commands')
VerificationResult = message('VerificationResult')
