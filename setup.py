"""All metadata is in setup.cfg; only an extension module has to be named here. Without a C compiler it is left out."""

from setuptools import Extension, setup

setup(ext_modules=[Extension("executor._forkloop", ["executor/forkloop.c"], extra_compile_args=["-O2"], optional=True)])
