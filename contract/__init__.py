"""What the controller and the sidecars say to each other: names, the assignment, the Lease and the report.

Formats only. Nothing here reads a clock, opens a file or knows a client, and nothing here decides.

Errors, all of them values that carry the object and the field::

    ContractError(ValueError)      something read is not what docs/contract.md says
    +-- UnknownVersion             it is of a format version that this program does not speak
"""
