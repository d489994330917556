# shellcheck shell=sh
# The environment in every image; sourced by the images' %environment and %test.

export PATH=/opt/scimill/.venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LANG=C.UTF-8
# The home directory and variables come from the host: ignore Python packages found through them.
export PYTHONNOUSERSITE=1
export PYTHONPATH='' PYTHONHOME=''
# Open MPI refuses root unless told otherwise, and binds each rank with all its threads to one core.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_hwloc_base_binding_policy="${OMPI_MCA_hwloc_base_binding_policy:-none}"
# An ordinary user's ranks have a user namespace each, and cannot read each other's memory.
export OMPI_MCA_btl_vader_single_copy_mechanism="${OMPI_MCA_btl_vader_single_copy_mechanism:-none}"
# Components of MPI in the home directory are those of the host's MPI.
export OMPI_MCA_mca_base_component_path=SYS_DEFAULT
