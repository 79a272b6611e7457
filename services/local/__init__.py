"""The platform on real parts on one machine: `serai-platform up-real` and `run-real`, and the system tests.

RabbitMQ, Consul, PostgreSQL and Nomad as they are found here, each in its own folder, and the four services as
processes of their own under a small supervisor. For trying and for tests; deployments have their own supervisor.
"""
