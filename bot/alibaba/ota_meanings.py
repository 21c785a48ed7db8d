"""What the cloud's refusals mean that concern rollouts, tasks, packages, products and devices. A table, as `meanings`.

The API's own pages list codes per operation, and none for the cancelling ones: those of their siblings stand for them.
https://help.aliyun.com/zh/iot/developer-reference/api-updateotajob and the pages of the other operations.
"""

from __future__ import annotations

from bot.alibaba.meanings import BROKEN, DEFECT, FORMAT, OPERATOR, YOU, Meaning, each

_OVER = Meaning("{The_job} is over already ({code}).", "See what its devices did: {see}", YOU)
_NOT_ITS_TASKS = Meaning(
    "Some of these tasks do not belong to {the_job}, or are not there any more ({code}).",
    "See the tasks it has now ({see}), and ask again for those.",
    YOU,
)
_NOTHING_TO_RETRY = Meaning(
    "{The_job} has no task that can be run again ({code}).",
    "Only failed and cancelled tasks can. See what its devices did: {see}",
    YOU,
)
_NO_DEVICE = Meaning(
    "Instance {instance} has no {no_device} ({code}).",
    "Check product and device name (capitals count), or name another instance: on <instance>",
    YOU,
)
_NO_PRODUCT = Meaning(
    "Instance {instance} has no {no_product} ({code}).",
    "Check the ProductKey (capitals count), or name another instance: on <instance>",
    YOU,
)
_NO_FIRMWARE = Meaning(
    "Instance {instance} has no {no_firmware} ({code}).",
    "Check the firmware (/ota firmware lists them), or name another instance: on <instance>",
    YOU,
)
_NOT_OURS = Meaning(
    "The account of instance {instance} may not use {no_firmware} ({code}).",
    "Check that the package belongs to this account; name another instance with: on <instance>",
    YOU,
)
_TOO_MANY = Meaning(
    "This call names more devices or tasks than Alibaba Cloud takes at once ({code}).",
    "Ask again for fewer. This is a defect of otabrake as well: report it with the RequestId.",
    YOU,
)
_NO_STRATEGY = Meaning(
    "{The_job} has no strategy any more ({code}): it enrols no new devices.",
    "Cancel its tasks instead: {cancel}",
    YOU,
)
_SETTING = Meaning(
    "Alibaba Cloud does not accept a setting of {the_job} that goes along with the rate ({code}).",
    "A change of rate sends all settings of the job again, as they were read. Change the rate in the IoT console, or "
    "stop the job: {cancel}",
    YOU,
)
_PACKAGE = Meaning(
    "Alibaba Cloud does not accept the name or description of a package ({code}).",
    "Change it in the IoT console; otabrake never sends one: report this with the RequestId.",
    OPERATOR,
)
_MODULE = Meaning(
    "Alibaba Cloud does not accept how the device or its module is named ({code}).",
    "Check product and device name (capitals count).",
    YOU,
)

OTA = {
    "iot.ota.InvalidJobId": Meaning(
        "Instance {instance} has no {no_job}.",
        "Check the job id for a missing character (capitals count), or name another instance: on <instance>",
        YOU,
    ),
    **each(_OVER, "iot.ota.JobCanceled iot.ota.JobHasCanceled iot.ota.JobHasFinished"),
    "iot.ota.noDynamicJob": Meaning(
        "{The_job} is not a dynamic rollout, so it has no strategy to cancel and no setting of one.",
        "Cancel its tasks instead: {cancel}",
        YOU,
    ),
    "iot.ota.StrategyNotFound": _NO_STRATEGY,
    **each(_NOT_ITS_TASKS, "iot.ota.taskNotExist iot.ota.UnmatchedJob iot.ota.InvalidTaskId iot.ota.InvalidTaskExist"),
    **each(_NOTHING_TO_RETRY, "iot.ota.FailedTaskNotFound iot.ota.DeviceNotReUpgraded"),
    **each(_TOO_MANY, "iot.ota.TooManyOtaTask iot.device.TooManyDeviceNamesPerRequest"),
    "iot.ota.FirmwareNotVerified": Meaning(
        "The package of {the_job} is not verified, so no device may be given it ({code}).",
        "Verify the package in the IoT console, then ask again.",
        YOU,
    ),
    **each(_NO_FIRMWARE, "iot.ota.FirmwareNotFound iot.ota.InvalidFirmwareUid"),
    **each(_NOT_OURS, "iot.ota.NotFirmwareOwner"),
    "iot.ota.FirmwareAndProductKeyMismatch": Meaning(
        "The package does not belong to that product ({code}).", "Check {names}; /ota firmware lists both.", YOU
    ),
    "iot.ota.OperationForbidden": Meaning(
        "Alibaba Cloud forbids this for the tenant that the account of instance {instance} is ({code}).",
        "Do it with the account that owns the rollout: name another instance with: on <instance>",
        YOU,
    ),
    "iot.ota.InvalidMaximumPerMinute": Meaning(
        "The rate of {the_job} is outside of what Alibaba Cloud takes.",
        "Ask again with 10 to 10,000 devices a minute.",
        YOU,
    ),
    **each(
        _SETTING,
        "iot.ota.InvalidUpgradeType iot.ota.InvalidStrategyType iot.ota.InvalidTimeout iot.ota.InvalidSrcVersionList "
        "iot.ota.EmptySrcVersionList iot.ota.JobTagIsTooLong iot.ota.InvalidBaseRatePerMinute "
        "iot.ota.InvalidBaseSpeedPerMinute iot.ota.InvalidConstantSpeedParameter "
        "iot.ota.InvalidExponentialRateParameter iot.ota.InvalidIncrementFactor "
        "iot.ota.EmptyNumberOfNotifiedDevicesAndNumberOfSucceedDevices "
        "iot.ota.InvalidNumberOfNotifiedDevicesOrNumberOfSucceedDevices",
    ),
    **each(_MODULE, "iot.ota.NullOtaModuleName iot.ota.InvalidOtaModuleName iot.ota.EmptyDeviceInfoParams"),
    "iot.firmware.InvalidTaskStatus": DEFECT,
    "iot.firmware.ListOTATaskByDeviceFailed": BROKEN,
    **each(_PACKAGE, "iot.firmware.AlreadyExistedFirmwareName iot.firmware.IncorrectFormattedFirmwareName"),
    **each(_PACKAGE, "iot.firmware.FirmwareDescExceedLimit iot.firmware.FirmwareUdiExceedLimit"),
}

PRODUCTS_AND_DEVICES = {
    "iot.prod.NotExistedProduct": _NO_PRODUCT,
    **each(FORMAT, "iot.prod.NullProductKey iot.prod.InvalidFormattedProductkey"),
    **each(_NO_DEVICE, "iot.device.NotExistedDevice iot.ota.DeviceNotExist iot.device.InvalidIoTId"),
    **each(FORMAT, "iot.device.NullDeviceName iot.device.NoneDeviceNameElement"),
    "iot.device.InvalidFormattedDeviceNameInNameArray": FORMAT,
}
